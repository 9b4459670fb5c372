-- SPDX-License-Identifier: MIT
-- Spreads TCP connections to one address over several servers, before the
-- kernel has seen a packet. Needs a kernel with kernel-patches/xdplua.
--
--	ip route add 10.0.9.9 via BALANCER		(on the client)
--	lunatik run examples/xdp_balancer softirq	(on the balancer)
--
-- The servers answer through the balancer, which puts the service's address
-- back; under their own they can't be reached at that port any more. Errors
-- (ICMP) are not translated: what clients may send has to fit the way to the
-- servers, or TCPMSS has to see to it.
--
local xdp = require("xdp")
local action = require("linux.xdp")

local SERVICE <const>, PORT <const> = "10.0.9.9", 80
local SERVERS <const> = {"10.0.2.2", "10.0.2.3"}
local INSIDE <const>, OUTSIDE <const> = "eth0", "eth1"	-- clients, servers

local PASS <const> = action.PASS

local IPV4 <const>, TCP <const> = 0x0800, 6
local ETHERNET <const> = 14
local IP_SUM <const>, SOURCE <const>, DESTINATION <const> = 24, 26, 30	-- in the frame
local TCP_SUM <const> = 16						-- in TCP's header

local function packed(address)
	local bytes = {}
	for byte in address:gmatch("%d+") do
		bytes[#bytes + 1] = string.char(math.tointeger(byte))
	end
	return table.concat(bytes)
end

local service = packed(SERVICE)
local servers, is_server = {}, {}
for i, address in ipairs(SERVERS) do
	servers[i] = packed(address)
	is_server[servers[i]] = true
end

local function be16(packet, at)
	return packet:getuint8(at) << 8 | packet:getuint8(at + 1)
end

local function be32(bytes)
	return (string.unpack(">I4", bytes))
end

-- Where TCP begins, nil if it does not; a fragment is nobody's.
local function tcp(packet)
	if #packet < ETHERNET + 40 or be16(packet, 12) ~= IPV4 or packet:getuint8(23) ~= TCP
		or be16(packet, 20) & 0x3fff ~= 0 then
		return
	end
	local first = packet:getuint8(ETHERNET)
	local size = (first & 15) * 4
	if first >> 4 == 4 and size >= 20 and #packet >= ETHERNET + size + 20 then
		return ETHERNET + size
	end
end

-- A checksum in which some bytes were replaced by others (RFC 1624).
local function correct(packet, at, old, new)
	local sum = xdp.csum_diff(old, new, ~packet:getuint16(at) & 0xffff)
	sum = (sum & 0xffff) + (sum >> 16)
	sum = (sum & 0xffff) + (sum >> 16)
	packet:setuint16(at, ~sum & 0xffff)
end

local function readdress(packet, at, start, new)
	local old = packet:getstring(at, 4)
	packet:setstring(at, new)
	correct(packet, IP_SUM, old, new)
	correct(packet, start + TCP_SUM, old, new)
end

-- On to wherever the routes say. What they can't yet say (nobody has asked for
-- the neighbour) the kernel finds out, with the address already rewritten.
local function send(ctx, packet)
	local hops = packet:getuint8(22)
	if hops <= 1 then return PASS end
	local route = ctx:fib_lookup{
		src = be32(packet:getstring(SOURCE, 4)), dst = be32(packet:getstring(DESTINATION, 4)),
		protocol = TCP, length = be16(packet, 16),
	}
	if not route then return PASS end
	local old = packet:getstring(22, 2)
	packet:setuint8(22, hops - 1)
	correct(packet, IP_SUM, old .. "\0\0", packet:getstring(22, 2) .. "\0\0")
	packet:setstring(0, route.dmac .. route.smac)
	return ctx:redirect(route.ifindex)
end

xdp.attach(function(ctx)
	local packet = ctx:packet()
	local start = tcp(packet)
	if not start or be16(packet, start + 2) ~= PORT
		or packet:getstring(DESTINATION, 4) ~= service then
		return PASS
	end
	-- All of a connection goes to one server.
	local flow = be32(packet:getstring(SOURCE, 4)) ~ be16(packet, start) * 2654435761
	readdress(packet, DESTINATION, start, servers[(flow >> 16) % #servers + 1])
	return send(ctx, packet)
end, {dev = INSIDE, fallback = "closed"})	-- half rewritten it is nobody's

xdp.attach(function(ctx)
	local packet = ctx:packet()
	local start = tcp(packet)
	if not start or be16(packet, start) ~= PORT
		or not is_server[packet:getstring(SOURCE, 4)] then
		return PASS
	end
	readdress(packet, SOURCE, start, service)
	return send(ctx, packet)
end, {dev = OUTSIDE, fallback = "closed"})
