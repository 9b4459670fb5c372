-- SPDX-License-Identifier: MIT
-- Lets so many packets a second of each source be forwarded, and no more. The
-- counters stand in a table that other scripts can see. Run `percpu`, each CPU
-- counts for itself, and the table of the last one is seen.
--
--	lunatik run examples/rate_limit softirq
--	lunatik -e 'for_each = require("rcu").map
--	            for_each(require("lunatik")._ENV.rates, function(k, v) print(#k, v & 0xfffff) end)'
--
local linux = require("linux")
local lunatik = require("lunatik")
local netfilter = require("netfilter")
local nf = require("linux.nf")
local rcu = require("rcu")

local LIMIT <const> = 20		-- packets a second, and as many at once
local SOURCES_MAX <const> = 1000	-- counted at a time; forged ones have no end
local COUNT <const> = 0xfffff		-- of a value; the rest is the second

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP

local rates = rcu.table(1024)
lunatik._ENV.rates = rates

-- Who is counted, in a ring: who comes new takes the place of who has been there
-- longest, and who is forgotten so begins anew.
local sources, place = {}, 0

local function remember(source)
	place = place % SOURCES_MAX + 1
	if sources[place] then
		rates[sources[place]] = nil
	end
	sources[place] = source
end

-- Of the header that each packet has, the later fragments of one as well.
local function source_of(view)
	if view:getuint8(0) >> 4 == 4 then
		return view:getstring(12, 4)
	end
	return view:getstring(8, 16)
end

local function filter(skb)
	local source = source_of(skb:data("net"))
	local second = linux.time() // 1000000000
	local value = rates[source]
	if not value then
		remember(source)
	end
	if not value or value >> 20 ~= second then
		value = second << 20
	end
	-- One packet may stand for many.
	local count = skb:segments()
	local passes = (value & COUNT) + count <= LIMIT
	-- Of what is dropped, too: who is remembered has a counter.
	rates[source] = passes and value + count or value
	return passes and ACCEPT or DROP
end

netfilter.register{
	hook = filter,
	pf = nf.proto.INET,
	hooknum = nf.inet.FORWARD,
	fallback = "closed",	-- a flood must not pass when it tires the script
}
