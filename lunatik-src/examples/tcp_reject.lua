-- SPDX-License-Identifier: MIT
-- Refuses TCP connections to one port with a reset, and datagrams to it with
-- ICMP's "port unreachable", IPv4 and IPv6 alike.
--
--	lunatik run examples/tcp_reject softirq
--
local netfilter = require("netfilter")
local nf = require("linux.nf")
local packet = require("packet")

local PORT <const> = 8080

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP

local function filter(skb)
	local view = skb:data("net")
	local start, _, _, port = packet.tcp(view)
	if start == false then		-- whatever it is, nobody can say
		return DROP
	elseif port == PORT then
		skb:reset()
		return DROP
	end
	start, _, port = packet.udp(view)
	if start == false then
		return DROP
	elseif port == PORT then
		skb:unreachable()
		return DROP
	end
	return ACCEPT
end

-- With conntrack fragments are put together: a port in a part is nobody's.
for _, place in ipairs{nf.inet.FORWARD, nf.inet.LOCAL_IN} do
	netfilter.register{
		hook = filter,
		pf = nf.proto.INET,
		hooknum = place,
		conntrack = true,
		fallback = "closed",	-- what tires the script must not pass
	}
end
