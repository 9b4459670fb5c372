-- SPDX-License-Identifier: MIT
-- Lists each interface that appears from now on in this network namespace, for
-- examples/quarantine.
--
--	lunatik run examples/quarantine_watch
--
local lunatik = require("lunatik")
local notifier = require("notifier")
local notify = require("linux.notify")
local netdev = require("linux.netdev")
local rcu = require("rcu")

local quarantine = rcu.table()
lunatik._ENV.quarantine = quarantine

local watching = false		-- those that are there are told of first

notifier.netdevice(function(event, _, ifindex)
	if ifindex and watching and event == netdev.REGISTER then
		quarantine[tostring(ifindex)] = true
	elseif ifindex and event == netdev.UNREGISTER then
		quarantine[tostring(ifindex)] = nil
	end
	return notify.OK
end)
watching = true
