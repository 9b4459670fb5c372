-- SPDX-License-Identifier: MIT
-- Drops UDP datagrams to one port, on their way into this machine.
--
--	lunatik run examples/drop_port softirq
--
local byteorder = require("byteorder")
local netfilter = require("netfilter")
local nf = require("linux.nf")

local PORT <const> = 9999
local UDP <const> = 17

local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP

local function filter(skb)
	local packet = skb:data("net")
	if packet:getuint8(9) ~= UDP then
		return ACCEPT
	end
	local header = (packet:getuint8(0) & 15) * 4
	local port = byteorder.ntoh16(packet:getuint16(header + 2))
	return port == PORT and DROP or ACCEPT
end

netfilter.register{
	hook = filter,
	pf = nf.proto.IPV4,
	hooknum = nf.inet.LOCAL_IN,
	priority = nf.ip.pri.FILTER,
}
