-- SPDX-License-Identifier: MIT
-- Resets TLS connections to blocked server names, also when the ClientHello
-- that names them comes in several segments.
--
--	lunatik run examples/sni_block softirq
--
local netfilter = require("netfilter")
local nf = require("linux.nf")
local packet = require("packet")
local ticker = require("ticker")

local BLOCKED <const> = {
	["blocked.example"] = true,
}
local PORT <const> = 443
local HELLO_MAX <const> = 16384		-- bytes of a ClientHello that we wait for
local RECORDS_MAX <const> = 256		-- that it is cut into
local EXTENSIONS_MAX <const> = 128	-- before the name
local NAME_MAX <const> = 255
local PENDING_MAX <const> = 500		-- connections that we wait for at once
local PATIENCE <const> = 10000		-- ms, at least, for each of them

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
local NEW <const> = nf.ct.info.NEW
local SYN <const> = 2

-- What has come of each ClientHello, by the connection's id. Those that are
-- still in `older` when the ticker comes again are forgotten.
local pending, older, count = {}, {}, 0

ticker.new(PATIENCE, function()
	older, pending, count = pending, {}, 0
end)

local function u8(s, at) return (s:byte(at)) or error("short") end
local function u16(s, at) return u8(s, at) << 8 | u8(s, at + 1) end
local function u24(s, at) return u8(s, at) << 16 | u16(s, at + 1) end

-- The server's name in a whole ClientHello; "" if it has none.
local function server_name(hello)
	local at = 1 + 4 + 2 + 32			-- type, length, version, random
	at = at + 1 + u8(hello, at)			-- session
	at = at + 2 + u16(hello, at)			-- cipher suites
	at = at + 1 + u8(hello, at)			-- compression
	if at > #hello then
		return ""
	end
	local last = at + 2 + u16(hello, at)
	at = at + 2
	for _ = 1, EXTENSIONS_MAX do
		if at + 4 > last then
			return ""
		end
		local kind, length = u16(hello, at), u16(hello, at + 2)
		if kind == 0 then
			local size = u16(hello, at + 7)
			if size > NAME_MAX then
				error("long")
			end
			return hello:sub(at + 9, at + 8 + size):lower()
		end
		at = at + 4 + length
	end
	error("many")
end

-- The handshake's bytes in a stream of records: the ClientHello when it is
-- whole, false while it is not, nil if it is none.
local function client_hello(stream)
	local parts, at, size = {}, 1, 0
	while at + 5 <= #stream do
		if u8(stream, at) ~= 22 then
			return nil
		end
		local length = u16(stream, at + 3)
		local part = stream:sub(at + 5, at + 4 + length)
		if #parts == RECORDS_MAX then
			error("many")
		end
		parts[#parts + 1] = part
		size = size + #part
		at = at + 5 + length
	end
	local hello = table.concat(parts)
	if size < 4 then
		return #stream < HELLO_MAX and false or nil
	elseif u8(hello, 1) ~= 1 or u24(hello, 2) + 4 > HELLO_MAX then
		return nil
	end
	local wanted = u24(hello, 2) + 4
	return size >= wanted and hello:sub(1, wanted)
end

local function blocked(name)
	while name do
		if BLOCKED[name] then
			return true
		end
		name = name:match("^[^.]*%.(.*)$")
	end
	return false
end

-- One connection's next bytes, from sequence number `sequence` on.
local function feed(state, sequence, bytes)
	local ahead = sequence - state.next & 0xffffffff
	if ahead >= 0x80000000 then		-- seen before
		local old = 0x100000000 - ahead
		if old >= #bytes then
			return ACCEPT
		end
		bytes = bytes:sub(old + 1)
	elseif ahead > 0 then			-- let it come again, in its turn
		return DROP
	end
	state.stream = state.stream .. bytes
	state.next = state.next + #bytes & 0xffffffff
	local ok, hello = pcall(client_hello, state.stream)
	if ok and hello == false then
		return ACCEPT
	end
	state.done = true
	local name
	if ok and hello then
		ok, name = pcall(server_name, hello)
	end
	-- What would take the whole budget to read is refused unread.
	state.refused = not ok or blocked(name)
	state.stream = ""
	return state.refused and DROP or ACCEPT
end

-- A connection begins: with one sequence number, for a second one would have what
-- comes by the first taken for seen before; and without data, which a server need
-- not take, and whoever has sent some so (TCP fast open) sends again without.
local function begin(id, sequence, size)
	local state = pending[id] or older[id]
	if state and state.answered then	-- one that is over, of the same id
		state, pending[id], older[id] = nil, nil, nil
	end
	if size > 0 or state and state.first ~= sequence then
		return DROP
	elseif not pending[id] and count < PENDING_MAX then
		count = count + 1
		pending[id] = state or
			{first = sequence, next = sequence + 1 & 0xffffffff, stream = ""}
	end
	return ACCEPT
end

local function filter(skb)
	local view = skb:data("net")
	local start, payload, _, port = packet.tcp(view)
	if port ~= PORT then
		return ACCEPT
	end
	local id, info = skb:conntrack()
	if not id then
		return ACCEPT
	elseif view:getuint8(start + 13) & SYN ~= 0 then
		-- One that has been answered goes on as it began.
		return info == NEW and begin(id, packet.get32(view, start + 4), #view - payload) or ACCEPT
	end
	local state = pending[id] or older[id]
	if state then
		state.answered = info ~= NEW
	end
	if not state or payload == #view or (state.done and not state.refused) then
		return ACCEPT
	end
	if state.refused or feed(state, packet.get32(view, start + 4), view:getstring(payload)) == DROP then
		if state.refused then
			skb:reset()
		end
		return DROP
	end
	return ACCEPT
end

netfilter.register{
	hook = filter,
	pf = nf.proto.INET,
	hooknum = nf.inet.FORWARD,
	conntrack = true,
}
