-- SPDX-License-Identifier: MIT
--
-- Finds the transport header of an IP packet.
--
local byteorder = require("byteorder")

local ntoh16 <const> = byteorder.ntoh16

local packet = {
	TCP = 6, UDP = 17, ICMP = 1, ICMPV6 = 58,
}

-- Extension headers that say how long they are.
local SKIPPED <const> = {[0] = true, [43] = true, [60] = true}
local FRAGMENT <const> = 44
local HEADERS_MAX <const> = 32		-- more are an enemy's, who wants a script's budget

--- The 16 bits at an offset of a view, as the network orders them.
function packet.get16(view, offset)
	return ntoh16(view:getuint16(offset))
end

--- The same of 32.
function packet.get32(view, offset)
	return packet.get16(view, offset) << 16 | packet.get16(view, offset + 2)
end

--- Write them.
function packet.set16(view, offset, value)
	view:setuint8(offset, value >> 8 & 255)
	view:setuint8(offset + 1, value & 255)
end

local function locate4(view, size)
	local start = (view:getuint8(0) & 15) * 4
	local fragment = packet.get16(view, 6) & 0x1fff
	if start < 20 or start > size or fragment ~= 0 then
		return nil
	end
	return view:getuint8(9), start, 4
end

local function locate6(view, size)
	local protocol, start, headers = view:getuint8(6), 40, 0
	while SKIPPED[protocol] or protocol == FRAGMENT do
		headers = headers + 1
		if start + 8 > size or headers > HEADERS_MAX then
			return nil
		end
		local length = (view:getuint8(start + 1) + 1) * 8
		if protocol == FRAGMENT then
			if packet.get16(view, start + 2) >> 3 ~= 0 then
				return nil
			end
			length = 8
		end
		protocol, start = view:getuint8(start), start + length
	end
	if start > size then
		return nil
	end
	return protocol, start, 6
end

-- protocol, offset of its header, version
local function locate(view, size)
	if size < 20 then
		return nil
	end
	local version = view:getuint8(0) >> 4
	if version == 4 then
		return locate4(view, size)
	elseif version == 6 and size >= 40 then
		return locate6(view, size)
	end
	return nil
end

--- protocol, offset of its header, source, destination (packed); nil if it is
--- no whole IP header, or a fragment that is not the first.
function packet.parse(view)
	local protocol, start, version = locate(view, #view)
	if version == 4 then
		return protocol, start, view:getstring(12, 4), view:getstring(16, 4)
	elseif version == 6 then
		return protocol, start, view:getstring(8, 16), view:getstring(24, 16)
	end
	return nil
end

--- offset of the UDP payload, source port, destination port; nil if it is no UDP.
function packet.udp(view)
	local size = #view
	local protocol, start = locate(view, size)
	if protocol ~= packet.UDP or size < start + 8 then
		return nil
	end
	return start + 8, packet.get16(view, start), packet.get16(view, start + 2)
end

--- offset of the TCP header, of the payload, source port, destination port.
function packet.tcp(view)
	local size = #view
	local protocol, start = locate(view, size)
	if protocol ~= packet.TCP or size < start + 20 then
		return nil
	end
	local payload = start + (view:getuint8(start + 12) >> 4) * 4
	if payload > size then
		return nil
	end
	return start, payload, packet.get16(view, start), packet.get16(view, start + 2)
end

return packet
