-- SPDX-License-Identifier: GPL-2.0-only
-- The twins of filters.bpf.c: judges.NAME(packet) -> DROP or PASS.
local xdp = require("xdp")
local action = require("linux.xdp")
local DROP <const>, PASS <const> = action.DROP, action.PASS

local EARNED <const> = 3600000000000	-- what earns one packet more, in ns
local PER_SOURCE <const>, PER_SERVICE <const> = 20, 10
local EXTENSIONS <const> = 32
local BLOCKED <const> = "blocked.example"

local sources = {}
local judges = {}

local function be16(packet, at)
	return packet:getuint8(at) << 8 | packet:getuint8(at + 1)
end

-- The size of IPv4's header, nil if there is none.
local function ip(packet)
	if #packet < 34 or be16(packet, 12) ~= 0x0800 then return end
	local first = packet:getuint8(14)
	local size = (first & 15) * 4
	if first >> 4 == 4 and size >= 20 then return size end
end

-- Where TCP's header is, nil if there is none: only the first fragment has one.
local function tcp(packet)
	local size = ip(packet)
	if size and packet:getuint8(23) == 6 and be16(packet, 20) & 0x1fff == 0
		and #packet >= 34 + size then
		return 14 + size
	end
end

function judges.drop_source(packet)
	return ip(packet) and sources[packet:getstring(26, 4)] and DROP or PASS
end

local function bucket(most)
	local left, at = {}, {}
	return function(key)
		local now = xdp.ktime()
		local credit = most * EARNED
		if left[key] then credit = math.min(credit, left[key] + now - at[key]) end
		at[key] = now
		local pass = credit >= EARNED
		left[key] = pass and credit - EARNED or credit
		return pass
	end
end

local per_source, per_service = bucket(PER_SOURCE), bucket(PER_SERVICE)

function judges.rate_limit(packet)
	if not ip(packet) then return PASS end
	return per_source(packet:getstring(26, 4)) and PASS or DROP
end

function judges.syn_flood(packet)
	local at = tcp(packet)
	if not at or packet:getuint8(at + 13) & 0x17 ~= 0x02 then return PASS end
	return per_service(packet:getstring(30, 4) .. packet:getstring(at + 2, 2)) and PASS or DROP
end

-- Reads beyond the packet's end raise an error: then there was no name.
local function server_name(packet, at)
	if packet:getuint8(at) ~= 22 or packet:getuint8(at + 5) ~= 1 then return end
	at = at + 44 + packet:getuint8(at + 43)
	at = at + 2 + be16(packet, at)
	at = at + 1 + packet:getuint8(at) + 2
	for _ = 1, EXTENSIONS do
		local kind, size = be16(packet, at), be16(packet, at + 2)
		if kind == 0 then
			if packet:getuint8(at + 6) ~= 0 then return end
			return packet:getstring(at + 9, be16(packet, at + 7))
		end
		at = at + 4 + size
	end
end

function judges.sni_block(packet)
	local at = tcp(packet)
	if not at or be16(packet, at + 2) ~= 443 then return PASS end
	local found, name = pcall(server_name, packet, at + (packet:getuint8(at + 12) >> 4) * 4)
	return found and name == BLOCKED and DROP or PASS
end
