-- SPDX-License-Identifier: MIT
--
-- Messages between runtimes: a fifo that keeps their bounds, and a completion
-- that wakes who waits for them. One receiver for a mailbox; any number of
-- senders, in any context.
--
local fifo       = require("fifo")
local completion = require("completion")

local mailbox = {}

local LENGTH = "<I4" -- of the message that follows
local LENGTH_SIZE = string.packsize(LENGTH)

local Inbox, Outbox = {}, {}
Inbox.__index, Outbox.__index = Inbox, Outbox

local function new(class, queue, event)
	if math.type(queue) == "integer" then
		queue, event = fifo.new(queue), event or completion.new()
	elseif type(queue) ~= "userdata" then
		error("bad mailbox (fifo or size expected, got " .. type(queue) .. ")", 3)
	end
	return setmetatable({queue = queue, event = event}, class)
end

--- A mailbox to receive from; its fields queue and event are for the other end.
function mailbox.inbox(queue, event)
	return new(Inbox, queue, event)
end

--- A mailbox to send to.
function mailbox.outbox(queue, event)
	return new(Outbox, queue, event)
end

function Inbox:send()
	error("receive-only mailbox", 2)
end

function Outbox:receive()
	error("send-only mailbox", 2)
end

--- Waits for a message, at most so many milliseconds, for ever without.
-- Without a completion it does not wait. Nil and why when there is none.
function Inbox:receive(timeout)
	if self.event then
		local ok, why = self.event:wait(timeout)
		if not ok then return nil, why end
	end
	local header, got = self.queue:pop(LENGTH_SIZE)
	if got == 0 then return nil, "empty" end
	if got < LENGTH_SIZE then error("malformed message", 2) end
	local length = string.unpack(LENGTH, header)
	local message, size = self.queue:pop(length)
	if size < length then error("malformed message", 2) end
	return message
end

--- Raises an error, and leaves the mailbox as it is, if the message does not fit.
function Outbox:send(message)
	-- One push: senders do not tear each other's messages.
	self.queue:push(string.pack(LENGTH, #message) .. message)
	if self.event then self.event:complete() end
end

return mailbox
