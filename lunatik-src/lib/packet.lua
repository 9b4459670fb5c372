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

-- The rest may stand in the fragments that follow, if any do.
local function cut(part)
	if part then
		return false
	end
	return nil
end

-- Both: protocol, offset of its header, whether fragments follow.
local function locate4(view, size)
	local start = (view:getuint8(0) & 15) * 4
	local fragment = packet.get16(view, 6)
	if start < 20 or start > size or fragment & 0x1fff ~= 0 then
		return nil
	end
	return view:getuint8(9), start, fragment & 0x2000 ~= 0
end

local function locate6(view, size)
	local protocol, start, headers, part = view:getuint8(6), 40, 0, false
	while SKIPPED[protocol] or protocol == FRAGMENT do
		headers = headers + 1
		if headers > HEADERS_MAX then
			return false
		elseif start + 8 > size then
			return cut(part)
		end
		local length = (view:getuint8(start + 1) + 1) * 8
		if protocol == FRAGMENT then
			local fragment = packet.get16(view, start + 2)
			if fragment >> 3 ~= 0 then
				return nil
			end
			part = part or fragment & 1 ~= 0
			length = 8
		end
		protocol, start = view:getuint8(start), start + length
	end
	if start > size then
		return cut(part)
	end
	return protocol, start, part
end

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

-- The same for one protocol, whose header is so long at least.
local function find(view, size, wanted, least)
	local protocol, start, part = locate(view, size)
	if protocol == false then
		return false
	elseif protocol ~= wanted then
		return nil
	elseif size < start + least then
		return cut(part)
	end
	return start, part
end

--- protocol, offset of its header, source, destination (packed); nil if it is
--- no whole IP header, or a fragment that is not the first; false if nobody can
--- say: of too many headers, or where fragments that follow have the rest of them.
function packet.parse(view)
	local protocol, start = locate(view, #view)
	if not protocol then
		return protocol
	elseif view:getuint8(0) >> 4 == 4 then
		return protocol, start, view:getstring(12, 4), view:getstring(16, 4)
	end
	return protocol, start, view:getstring(8, 16), view:getstring(24, 16)
end

--- offset of the UDP payload, source port, destination port, whether fragments
--- follow; nil if it is no UDP, false as above.
function packet.udp(view)
	local start, part = find(view, #view, packet.UDP, 8)
	if not start then
		return start
	end
	return start + 8, packet.get16(view, start), packet.get16(view, start + 2), part
end

--- offset of the TCP header, of the payload, source port, destination port, whether
--- fragments follow; nil or false likewise.
function packet.tcp(view)
	local size = #view
	local start, part = find(view, size, packet.TCP, 20)
	if not start then
		return start
	end
	local payload = start + (view:getuint8(start + 12) >> 4) * 4
	if payload > size then
		return cut(part)
	end
	return start, payload, packet.get16(view, start), packet.get16(view, start + 2), part
end

return packet
