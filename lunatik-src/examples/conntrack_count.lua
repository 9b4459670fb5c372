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

-- Who is counted, in a ring: who comes new takes the place of who has been there
-- longest.
local hosts, place = {}, 0

local function remember(host)
	place = place % HOSTS_MAX + 1
	if hosts[place] then
		bytes[hosts[place]] = nil
	end
	hosts[place] = host
end

local function count(skb)
	local source = skb:tuple("original")
	if source then
		local value = bytes[source]
		if not value then
			remember(source)
		end
		bytes[source] = (value or 0) + #skb
	end
	return ACCEPT
end

netfilter.register{
	hook = count,
	pf = nf.proto.INET,
	hooknum = nf.inet.FORWARD,
	conntrack = true,
}
