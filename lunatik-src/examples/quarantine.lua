-- SPDX-License-Identifier: MIT
-- Drops all that comes in through interfaces that quarantine_watch has listed.
--
--	lunatik run examples/quarantine_watch
--	lunatik run examples/quarantine softirq
--	lunatik -e 'require("lunatik")._ENV.quarantine["7"] = nil'	# let ifindex 7 go
--
local lunatik = require("lunatik")
local netfilter = require("netfilter")
local nf = require("linux.nf")

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP

local quarantine = lunatik._ENV.quarantine or error("run examples/quarantine_watch first", 0)

local function filter(skb)
	return quarantine[tostring(skb:ifindex())] and DROP or ACCEPT
end

for _, place in ipairs{
	{nf.proto.INET, nf.inet.FORWARD},
	{nf.proto.INET, nf.inet.LOCAL_IN},
	{nf.proto.ARP, nf.arp.IN},
} do
	netfilter.register{
		hook = filter,
		pf = place[1],
		hooknum = place[2],
		fallback = "closed",
	}
end
