-- SPDX-License-Identifier: MIT
-- Opens a TCP port for whoever has sent datagrams to three others in order.
--
--	lunatik run examples/port_knock softirq
--
local linux = require("linux")
local netfilter = require("netfilter")
local nf = require("linux.nf")
local packet = require("packet")

local KNOCKS <const> = {7001, 7002, 7003}
local PORT <const> = 2222
local SECONDS <const> = 30		-- to knock, and then to connect
local SOURCES_MAX <const> = 1000

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP

-- By source: how many knocks were right, and since when.
local sources, count = {}, 0

local function now()
	return linux.time() // 1000000000
end

local function state_of(source)
	local state = sources[source]
	if not state or now() - state.since > SECONDS then
		if not state then
			if count == SOURCES_MAX then	-- a flood: all begin anew
				sources, count = {}, 0
			end
			count = count + 1
		end
		state = {knocks = 0, since = now()}
		sources[source] = state
	end
	return state
end

local function knock(source, port)
	local state = state_of(source)
	if port == KNOCKS[state.knocks + 1] then
		state.knocks, state.since = state.knocks + 1, now()
	elseif port == KNOCKS[1] then
		state.knocks = 1
	else
		state.knocks = 0
	end
end

local function filter(skb)
	local view = skb:data("net")
	local _, _, source = packet.parse(view)
	local start, _, _, port = packet.tcp(view)
	if start == false then		-- whatever it is, nobody can say
		return DROP
	elseif port == PORT then
		-- Whoever is connected stays so: only the SYN asks.
		local opening = view:getuint8(start + 13) & 18 == 2
		return opening and state_of(source).knocks < #KNOCKS and DROP or ACCEPT
	end
	_, _, port = packet.udp(view)
	for _, wanted in ipairs(KNOCKS) do
		if port == wanted then
			knock(source, port)
			return DROP
		end
	end
	return ACCEPT
end

netfilter.register{
	hook = filter,
	pf = nf.proto.INET,
	hooknum = nf.inet.LOCAL_IN,
	conntrack = true,	-- a port in one fragment, the flags in the next
	fallback = "closed",
}
