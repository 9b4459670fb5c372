-- SPDX-License-Identifier: MIT
-- Answers queries for blocked names, and all below them, with "no such name".
--
--	lunatik run examples/dns_block softirq
--
local netfilter = require("netfilter")
local nf = require("linux.nf")
local packet = require("packet")

local BLOCKED <const> = {
	["blocked.example"] = true,
}

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
local HEADER <const> = 12
local RESPONSE <const> = 0x80		-- in the third byte
local NAME_MAX <const> = 255		-- longer ones no server answers
local NXDOMAIN <const> = 3
local LENGTH_MAX <const> = 4096		-- of what comes at once; no query is as long

-- The question's name in lower case, and where the question ends.
local function question(payload)
	local labels, at = {}, HEADER + 1
	while true do
		local length = payload:byte(at)
		if not length or length > 63 or at > HEADER + NAME_MAX then
			return nil
		elseif length == 0 then
			break
		end
		labels[#labels + 1] = payload:sub(at + 1, at + length):lower()
		at = at + length + 1
	end
	return labels, at + 4
end

local function blocked(labels)
	local name
	for i = #labels, 1, -1 do
		name = name and labels[i] .. "." .. name or labels[i]
		if BLOCKED[name] then
			return true
		end
	end
	return false
end

-- The query's own header and question, as an answer without records.
local function refusal(payload, last)
	local recursion = payload:byte(3) & 1
	return payload:sub(1, 2) .. string.char(RESPONSE | recursion, 0x80 | NXDOMAIN) ..
		"\0\1\0\0\0\0\0\0" .. payload:sub(HEADER + 1, last)
end

-- The answer to a message, unless it may pass.
local function judge(payload)
	-- Two machines that answered answers would never end.
	if #payload < HEADER or payload:byte(3) & RESPONSE ~= 0 then
		return nil
	end
	local labels, last = question(payload)
	if labels and last <= #payload and blocked(labels) then
		return refusal(payload, last)
	end
	return nil
end

local function filter(skb)
	local view = skb:data("net")
	local start, _, port, part = packet.udp(view)
	if start == false then		-- whatever it is, nobody can say
		return DROP
	elseif port ~= 53 then
		return ACCEPT
	elseif part or #view > start + LENGTH_MAX then
		return DROP
	end
	-- Datagrams that were sent at once come as one, and go as one.
	local verdict = ACCEPT
	local _, size = skb:segments()
	for at = start, #view - 1, size do
		local answer = judge(view:getstring(at, math.min(size, #view - at)))
		if answer then
			skb:reply(answer)
			verdict = DROP
		end
	end
	return verdict
end

-- With conntrack, so that a message that came in pieces is whole.
for _, place in ipairs{nf.inet.FORWARD, nf.inet.LOCAL_OUT} do
	netfilter.register{
		hook = filter,
		pf = nf.proto.INET,
		hooknum = place,
		conntrack = true,
		fallback = "closed",	-- what tires the script must not pass
	}
end
