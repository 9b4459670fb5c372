-- SPDX-License-Identifier: MIT
-- Counts the bytes of each host behind this router, in both directions, under
-- the address that it has itself, whatever addresses are translated to.
--
--	lunatik run examples/conntrack_count softirq
--
local lunatik = require("lunatik")
local netfilter = require("netfilter")
local nf = require("linux.nf")
local rcu = require("rcu")

local ACCEPT <const> = nf.action.ACCEPT
local HOSTS_MAX <const> = 1000

local bytes = rcu.table(1024)
lunatik._ENV.bytes = bytes

local hosts = 0

local function count(skb)
	local source = skb:tuple("original")
	if source then
		local value = bytes[source]
		if not value then
			if hosts == HOSTS_MAX then
				return ACCEPT
			end
			hosts, value = hosts + 1, 0
		end
		bytes[source] = value + #skb
	end
	return ACCEPT
end

netfilter.register{
	hook = count,
	pf = nf.proto.INET,
	hooknum = nf.inet.FORWARD,
	conntrack = true,
}
