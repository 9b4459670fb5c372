-- SPDX-License-Identifier: GPL-2.0-only
-- The twin of twin.bpf.c. MODE and MAPS are put in by the test.
local xdp, bpf = require("xdp"), require("bpf")
local action = require("linux.xdp")

local function pinned(name)
	return "MAPS/t_" .. name
end

local tables = {
	[0] = bpf.array(pinned("array")), bpf.hash(pinned("hash")), bpf.lru_hash(pinned("lru")),
}
local lists = {[3] = bpf.queue(pinned("queue")), [4] = bpf.stack(pinned("stack"))}
local outcomes = bpf.array(pinned("outcomes"))
local targets = {
	[48] = bpf.devmap(pinned("devices")), [52] = bpf.devmap(pinned("hashed")),
	[53] = bpf.cpumap(pinned("cpus")), [54] = bpf.xskmap(pinned("sockets")),
}
local ring, perf = bpf.ringbuf(pinned("ring")), bpf.perf(pinned("perf"))

local ERRNO <const> = {
	ENOENT = -2, E2BIG = -7, EAGAIN = -11, ENOMEM = -12, EACCES = -13, EBUSY = -16,
	EEXIST = -17, ENODEV = -19, EINVAL = -22, ENOSPC = -28, EOPNOTSUPP = -95,
}

-- What a call that may raise an error, or give nil and why, means to C.
local function status(ok, done, why)
	if ok and done ~= nil then return 0 end
	return ERRNO[ok and why or tostring(done):match("E%u+")] or -1
end

local function checked(f, ...)
	return status(pcall(f, ...))
end

local function found(value)
	if value then return 0, string.unpack("<I8", value) end
	return -1, 0
end

local orders = {}

for i, map in pairs(tables) do
	orders[i] = function(order) return found(map:lookup(order.raw_key)) end
	orders[8 + i] = function(order)
		return checked(map.update, map, order.raw_key, order.value, order.flags), 0
	end
	orders[16 + i] = function(order) return checked(map.delete, map, order.raw_key), 0 end
end

for i, map in pairs(lists) do
	orders[24 + i] = function(order) return checked(map.push, map, order.value, order.flags), 0 end
	orders[32 + i] = function() return found(map:pop()) end
	orders[40 + i] = function() return found(map:peek()) end
end

for what, map in pairs(targets) do
	orders[what] = function(order, ctx)
		local verdict = ctx:redirect_map(map, order.key, order.flags)
		return verdict, 0, verdict
	end
end

orders[51] = function(order, ctx)
	local verdict = ctx:redirect(order.key)
	return verdict, 0, verdict
end

orders[49] = function(order, ctx) return checked(ctx.event, ctx, ring, order.bytes), 0 end
orders[50] = function(order, ctx)
	return checked(ctx.event, ctx, perf, order.bytes, order.flags), 0
end

for i, name in ipairs{"adjust_head", "adjust_tail", "adjust_meta"} do
	orders[55 + i] = function(order, ctx)
		local delta = string.unpack("<i4", order.raw_key)
		local done, why = pcall(ctx[name], ctx, delta)
		local packet = ctx:packet()
		-- What comes before a packet is not known.
		local known = (i > 1 or delta >= 0) and #packet >= 4
		local first = known and string.unpack("<I4", packet:getstring(0, 4)) or 0
		return done and 0 or status(false, why), #packet << 32 | first, i == 2 and order.back
	end
end

orders[59] = function(order)
	return 0, xdp.csum_diff(order.raw_key, order.value, order.flags)
end

orders[60] = function(order, ctx)
	local ok, bytes = pcall(ctx:packet().getstring, ctx:packet(), order.key, 4)
	if ok then return 0, string.unpack("<I4", bytes) end
	return ERRNO.EINVAL, 0
end

orders[61] = function(order, ctx)
	local packet = ctx:packet()
	local done = pcall(packet.setstring, packet, order.key, order.value)
	return done and 0 or ERRNO.EINVAL, 0, order.back
end

-- Words that the order's value is shifted to.
local function words(order, length)
	local value, made = string.unpack("<i8", order.value), {}
	for i = 0, length // 4 - 1 do
		made[i + 1] = string.pack("<I4", value >> i & 0xffffffff)
	end
	return table.concat(made)
end

orders[62] = function(order)
	local from, to = order.flags & 0x3c, order.flags >> 8 & 0x3c
	return 0, xdp.csum_diff(words(order, from), words(order, to), order.key)
end

-- fd01::1, and fd02:: with another end.
local FROM <const>, TO <const> = "\xfd\x01" .. ("\0"):rep(13) .. "\1", "\xfd\x02" .. ("\0"):rep(10)

local function sum_of_address(sum, address)
	if type(address) == "number" then return sum * 31 + address end
	for at = 1, 16, 4 do sum = sum * 31 + string.unpack(">I4", address, at) end
	return sum
end

local function sum_of_route(route)
	return sum_of_address(route.ifindex * 31 + route.metric, route.nexthop)
end

local function sum_of_macs(sum, route)
	if not route.dmac then return sum * 31 * 31 end
	return (sum * 31 + string.unpack("<I6", route.dmac)) * 31 + string.unpack("<I6", route.smac)
end

orders[63] = function(order, ctx)
	local value = string.unpack("<i8", order.value)
	local v6, ifindex = value & 1 == 1, value >> 40 & 0xff
	local asked = {
		src = v6 and FROM or 0xc0000201,
		dst = v6 and TO .. string.pack(">I4", order.key) or order.key,
		tos = value >> 8 & 0xff, protocol = value >> 16 & 0xff, length = value >> 24 & 0xffff,
		ifindex = ifindex > 0 and ifindex or nil, flags = order.flags,
		table = value >> 48 & 0xff, mark = value >> 56 & 0xff,
	}
	local ok, route, why, known = pcall(ctx.fib_lookup, ctx, asked)
	if not ok then return status(false, route), 0 end
	if route then
		local sum = sum_of_macs(sum_of_route(route) * 31 + route.mtu, route)
		return 0, route.src and sum_of_address(sum, route.src) or sum
	end
	if not known then return why, 0 end
	return why, known.ifindex and sum_of_route(known) or known.mtu
end

-- All that is looked at of what stands before a packet.
local META <const> = 32

orders[64] = function(order, ctx)
	local value, meta = string.unpack("<I4", order.value), ctx:meta()
	local done, why = pcall(ctx.adjust_meta, ctx, -string.unpack("<i4", order.raw_key))
	for at = 0, math.min(#meta, META) - 4, 4 do meta:setuint32(at, value + at // 4) end
	if done then
		local delta = string.unpack("<i4", string.pack("<I4", order.flags)) // 256
		done, why = pcall(ctx.adjust_head, ctx, delta)
	end
	local sum = #meta
	for at = 0, math.min(#meta, META) - 4, 4 do sum = sum * 31 + meta:getuint32(at) end
	return done and 0 or status(false, why), sum, order.flags & 7
end

orders[65] = function() return 0, xdp.ktime() end
orders[66] = function() return 0, xdp.cpu() end
orders[67] = function() return 0, xdp.random() end
orders[68] = function(_, ctx) return 0, ctx:ifindex() end
orders[69] = function(_, ctx) return 0, ctx:queue() end

xdp.attach(function(ctx)
	local packet = ctx:packet()
	if #packet < 38 or packet:getstring(12, 2) ~= "\x88\xb5" then return action.PASS end
	local bytes = packet:getstring(14, 24)
	local number, what, key, flags = string.unpack("<I4I4I4I4", bytes)
	local run = orders[what]
	if not run then return action.PASS end
	local order = {
		bytes = bytes, key = key, raw_key = bytes:sub(9, 12), flags = flags,
		value = bytes:sub(17, 24), back = flags ~= 0 and action.TX,
	}
	local state, value, verdict = run(order, ctx)
	outcomes:update(number, string.pack("<i8I8", state, value))
	return verdict or action.DROP
end, {dev = "r0", mode = "MODE", fallback = "closed"})
