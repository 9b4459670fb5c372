-- SPDX-License-Identifier: MIT
-- Puts other addresses into the A and AAAA records of DNS answers.
--
--	lunatik run examples/dns_rewrite softirq
--
local netfilter = require("netfilter")
local nf = require("linux.nf")
local packet = require("packet")

-- By record type: 192.0.2.80 and 2001:db8::50.
local ADDRESSES <const> = {
	[1] = "\192\0\2\80",
	[28] = "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\80",
}

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
local HEADER <const> = 12
local LENGTH_MAX <const> = 4096		-- at once; resolvers ask for no more, by UDP

local changed = false			-- since the last packet came

-- The offset behind a name: labels, and at most one pointer at their end.
local function behind_name(view, at, last)
	while at < last do
		local length = view:getuint8(at)
		if length >= 192 then
			return at + 2
		elseif length == 0 then
			return at + 1
		end
		at = at + length + 1
	end
	error("torn", 0)
end

-- One message, up to its first fault.
local function rewrite(view, start, last)
	local questions = packet.get16(view, start + 4)
	local answers = packet.get16(view, start + 6)
	local at = start + HEADER
	for _ = 1, questions do
		at = behind_name(view, at, last) + 4
	end
	for _ = 1, answers do
		at = behind_name(view, at, last)
		local address = ADDRESSES[packet.get16(view, at)]
		local length = packet.get16(view, at + 8)
		if at + 10 + length > last then
			error("torn", 0)
		elseif address and length == #address then
			view:setstring(at + 10, address)
			changed = true
		end
		at = at + 10 + length
	end
end

local function filter(skb)
	local view = skb:data("net")
	local start, port, _, part = packet.udp(view)
	if start == false then		-- whatever it is, nobody can say
		return DROP
	elseif port ~= 53 then
		return ACCEPT
	elseif part or #view > start + LENGTH_MAX then
		return DROP
	end
	changed = false
	-- Datagrams that were sent at once come as one.
	local _, size = skb:segments()
	for at = start, #view - 1, size do
		local last = math.min(at + size, #view)
		if last >= at + HEADER and view:getuint8(at + 2) & 0x80 ~= 0 then
			pcall(rewrite, view, at, last)
		end
	end
	-- Of what stays as it is a wrong sum stays wrong.
	if changed then
		skb:checksum()
	end
	return ACCEPT
end

-- With conntrack, so that a message that came in pieces is whole.
for _, place in ipairs{nf.inet.FORWARD, nf.inet.LOCAL_IN} do
	netfilter.register{hook = filter, pf = nf.proto.INET, hooknum = place, conntrack = true}
end
