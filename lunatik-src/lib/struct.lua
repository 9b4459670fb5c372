-- SPDX-License-Identifier: MIT
--
-- Structs of C as tables: struct{{"port", "be16"}, {"name", "char[16]"}}
--
local integers = {
	u8 = "I1", u16 = "I2", u32 = "I4", u64 = "I8",
	s8 = "i1", s16 = "i2", s32 = "i4", s64 = "i8",
}

local orders = {be = ">", le = "<"}

-- The string.pack() option of one element, and its size.
local function element(name)
	local order, bits = name:match("^([bl]e)(%d+)$")
	local option = integers[order and "u" .. bits or name]
	if not option or bits == "8" then return end
	return (orders[order] or "=") .. option, string.packsize(option)
end

-- {kind, option, size of an element, number of elements or nil}
local function parse(text)
	local name, count = text:match("^(%w+)%[(%d+)%]$")
	if not name then
		local option, size = element(text)
		return option and {kind = "integer", option = option, unit = size, size = size}
	end
	count = tonumber(count)
	if not count or count < 1 or count > 65536 then return end
	if name == "char" or name == "bytes" then
		return {kind = name, option = "c" .. count, unit = 1, size = count}
	elseif name == "pad" then
		return {kind = "pad", option = ("x"):rep(count), unit = 1, size = count}
	end
	local option, size = element(name)
	return option and {
		kind = "array", option = option, unit = size, size = size * count, count = count,
	}
end

local Struct = {}
Struct.__index = Struct

local function padding(offset, unit)
	return -offset % unit
end

local function field(entry, index, fields)
	local name, text = entry[1], entry[2]
	local parsed = type(text) == "string" and parse(text)
	if not parsed then
		error(("bad field #%d (unknown type '%s')"):format(index, tostring(text)), 3)
	elseif parsed.kind ~= "pad" and (type(name) ~= "string" or fields[name]) then
		error(("bad field #%d (%s)"):format(index, type(name) ~= "string" and
			"a name expected" or "'" .. name .. "' is there twice"), 3)
	end
	parsed.name = name
	return parsed
end

--- A struct of the fields {name, type} in layout, one behind the other; with
-- aligned = true where a C compiler puts them.
local function struct(layout)
	if type(layout) ~= "table" or #layout == 0 then
		error("bad layout (a list of fields expected)", 2)
	end
	local self = {fields = {}, bytes = 0}
	local widest = 1
	for index, entry in ipairs(layout) do
		if type(entry) ~= "table" then
			error(("bad field #%d ({name, type} expected)"):format(index), 2)
		end
		local parsed = field(entry, index, self.fields)
		if layout.aligned then
			self.bytes = self.bytes + padding(self.bytes, parsed.unit)
			widest = math.max(widest, parsed.unit)
		end
		parsed.offset = self.bytes
		self.bytes = self.bytes + parsed.size
		self.fields[index] = parsed
		if parsed.kind ~= "pad" then self.fields[parsed.name] = parsed end
	end
	self.bytes = self.bytes + padding(self.bytes, widest)
	return setmetatable(self, Struct)
end

local function pack_array(parsed, values)
	if type(values) ~= "table" or #values ~= parsed.count then
		error(("%d integers expected"):format(parsed.count), 0)
	end
	local out = {}
	for i, value in ipairs(values) do
		out[i] = string.pack(parsed.option, value)
	end
	return table.concat(out)
end

local function pack_field(parsed, value)
	if parsed.kind == "pad" then
		return ("\0"):rep(parsed.size)
	elseif parsed.kind == "array" then
		return pack_array(parsed, value)
	elseif parsed.kind == "bytes" and #value ~= parsed.size then
		error(("%d bytes expected"):format(parsed.size), 0)
	end
	return string.pack(parsed.option, value)
end

--- The bytes of a table of values; every field must be there.
function Struct:pack(values)
	local out, length = {}, 0
	local function add(bytes)
		out[#out + 1] = bytes
		length = length + #bytes
	end
	for _, parsed in ipairs(self.fields) do
		add(("\0"):rep(parsed.offset - length))
		local ok, bytes = pcall(pack_field, parsed, values[parsed.name])
		if not ok then
			error(("bad field '%s' (%s)"):format(parsed.name, bytes), 2)
		end
		add(bytes)
	end
	add(("\0"):rep(self.bytes - length))
	return table.concat(out)
end

local function unpack_field(parsed, bytes, position)
	if parsed.kind == "array" then
		local values = {}
		for i = 1, parsed.count do
			values[i], position = string.unpack(parsed.option, bytes, position)
		end
		return values
	end
	local value = string.unpack(parsed.option, bytes, position)
	if parsed.kind == "char" then -- up to its NUL, if it has one
		return (value:match("^[^\0]*"))
	end
	return value
end

--- A table of the values in bytes (a string, or an object of data), from an
-- offset on that counts from 0.
function Struct:unpack(bytes, offset)
	offset = offset or 0
	if type(bytes) ~= "string" then
		bytes, offset = bytes:getstring(offset, self.bytes), 0
	end
	if offset < 0 or offset > #bytes - self.bytes then
		error(("out of bounds (%d bytes expected)"):format(self.bytes), 2)
	end
	local values = {}
	for _, parsed in ipairs(self.fields) do
		if parsed.kind ~= "pad" then
			values[parsed.name] = unpack_field(parsed, bytes, offset + parsed.offset + 1)
		end
	end
	return values
end

--- The size in bytes of a field.
function Struct:fieldsize(name)
	local parsed = type(name) == "string" and self.fields[name]
	if not parsed then
		error(("no field '%s'"):format(tostring(name)), 2)
	end
	return parsed.size
end

--- The size in bytes of the whole.
function Struct:size()
	return self.bytes
end

return struct
