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

for _, place in ipairs{nf.inet.FORWARD, nf.inet.LOCAL_IN} do
	netfilter.register{
		hook = filter,
		pf = nf.proto.INET,
		hooknum = place,
		fallback = "closed",
	}
end
