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
local LENGTH_MAX <const> = 4096		-- what resolvers ask for at most, by UDP

-- The offset behind a name: labels, and at most one pointer at their end.
local function behind_name(view, at)
	while true do
		local length = view:getuint8(at)
		if length >= 192 then
			return at + 2
		elseif length == 0 then
			return at + 1
		end
		at = at + length + 1
	end
end

local function rewrite(view, start)
	local questions = packet.get16(view, start + 4)
	local answers = packet.get16(view, start + 6)
	local at, changed = start + HEADER, false
	for _ = 1, questions do
		at = behind_name(view, at) + 4
	end
	for _ = 1, answers do
		at = behind_name(view, at)
		local address = ADDRESSES[packet.get16(view, at)]
		local length = packet.get16(view, at + 8)
		if address and length == #address then
			view:setstring(at + 10, address)
			changed = true
		end
		at = at + 10 + length
	end
	return changed
end

local function filter(skb)
	local view = skb:data("net")
	local start, port = packet.udp(view)
	if port ~= 53 or #view < start + HEADER or view:getuint8(start + 2) & 0x80 == 0 then
		return ACCEPT
	end
	if #view > start + LENGTH_MAX then
		return DROP
	end
	-- A torn message ends in "out of bounds", and passes.
	local ok, changed = pcall(rewrite, view, start)
	if not ok or changed then
		skb:checksum()
	end
	return ACCEPT
end

-- With conntrack, so that a message that came in pieces is whole.
for _, place in ipairs{nf.inet.FORWARD, nf.inet.LOCAL_IN} do
	netfilter.register{hook = filter, pf = nf.proto.INET, hooknum = place, conntrack = true}
end
