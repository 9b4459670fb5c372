# SPDX-License-Identifier: GPL-2.0-only
"""struct: the bytes that C has for the same fields."""

from __future__ import annotations

import struct
from collections.abc import Callable

from lab.vm.machine import Machine

Check = Callable[[str], str]


def test_bytes_are_those_of_c(machine: Machine) -> None:
    said = machine.lua(
        """
        local s = require("struct"){{"a", "u8"}, {"b", "be16"}, {"c", "u32"}, {"d", "s64"},
            {"e", "char[5]"}, {"_", "pad[2]"}, {"f", "le16"}, {"g", "u16[2]"}, {"h", "s8"}}
        local bytes = s:pack{a = 1, b = 0x0203, c = 0xfffffffe, d = -2, e = "abc", f = 0x0405,
            g = {6, 7}, h = -3}
        return s:size(), (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
        """
    )
    expected = struct.pack("<B", 1) + struct.pack(">H", 0x0203)
    expected += struct.pack("<Iq5s2xHHHb", 0xFFFFFFFE, -2, b"abc", 0x0405, 6, 7, -3)
    assert said.split() == [str(len(expected)), expected.hex()]


def test_aligned_as_a_compiler_does(machine: Machine) -> None:
    said = machine.lua(
        """
        local s = require("struct"){aligned = true,
            {"a", "u8"}, {"b", "u32"}, {"c", "u16"}, {"d", "u64"}, {"e", "char[3]"}}
        local bytes = s:pack{a = 1, b = 2, c = 3, d = 4, e = "xyz"}
        assert(#bytes == s:size())
        return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
        """
    )
    assert said == struct.pack("@BIHQ3s0Q", 1, 2, 3, 4, b"xyz").hex()


def test_there_and_back(check: Check) -> None:
    check(
        r"""
        local s = require("struct"){{"mac", "bytes[6]"}, {"name", "char[8]"}, {"port", "be16"},
            {"big", "u64"}, {"list", "be32[3]"}}
        local v = s:unpack(s:pack{mac = "\1\2\0\0\0\0", name = "eth0", port = 53,
            big = math.mininteger, list = {1, 2, 0xffffffff}})
        assert(v.mac == "\1\2\0\0\0\0" and v.name == "eth0" and v.port == 53)
        assert(v.big == math.mininteger and v.list[3] == 0xffffffff and #v.list == 3)
        """
    )


def test_fieldsize_and_size(check: Check) -> None:
    check(
        """
        local s = require("struct"){{"a", "u8"}, {"b", "be16"}, {"c", "char[5]"}, {"d", "u32[2]"}}
        assert(s:fieldsize("a") == 1 and s:fieldsize("b") == 2)
        assert(s:fieldsize("c") == 5 and s:fieldsize("d") == 8 and s:size() == 16)
        raises("no field 'z'", s.fieldsize, s, "z")
        raises("no field '1'", s.fieldsize, s, 1)
        """
    )


def test_reads_from_data_at_an_offset(check: Check) -> None:
    check(
        """
        local s = require("struct"){{"a", "be16"}, {"b", "u8"}}
        local d = require("data").new(8)
        d:setstring(5, s:pack{a = 0x1234, b = 9})
        assert(s:unpack(d, 5).a == 0x1234 and s:unpack(tostring(d), 5).b == 9)
        for _, offset in ipairs{6, -1, 8, math.maxinteger, math.mininteger} do
            raises("out of bounds", s.unpack, s, d, offset)
            raises("out of bounds", s.unpack, s, tostring(d), offset)
        end
        raises("out of bounds", s.unpack, s, "ab")
        """
    )


def test_values_that_do_not_fit(check: Check) -> None:
    check(
        r"""
        local struct = require("struct")
        local function packs(kind, value)
            return struct{{"field", kind}}:pack{field = value}
        end
        for kind, values in pairs{
            u8 = {256, -1, "x", {}}, s8 = {128, -129}, be16 = {65536, -1}, u32 = {1 << 32},
            ["char[3]"] = {"abcd", {}}, ["bytes[3]"] = {"ab", "abcd"},
            ["u16[2]"] = {{1}, {1, 2, 3}, {1, 65536}, 7}} do
            for _, value in ipairs(values) do
                raises("bad field 'field'", packs, kind, value)
            end
            raises("bad field 'field'", packs, kind, nil)
        end
        assert(packs("s8", -128) == "\x80")
        """
    )


def test_layouts_that_are_none(check: Check) -> None:
    check(
        """
        local struct = require("struct")
        raises("bad layout", struct, {})
        raises("bad layout", struct, "u8")
        raises("{name, type} expected", struct, {"u8"})
        for _, kind in ipairs{"u7", "be8", "u128", "char", "char[0]", "char[-1]", "char[x]", "u8 ",
                "u8[99999999]", "f32", "", "%s", 4} do
            raises("unknown type", struct, {{"a", kind}})
        end
        raises("unknown type", struct, {{"a"}})
        raises("twice", struct, {{"a", "u8"}, {"a", "u8"}})
        raises("name expected", struct, {{5, "u8"}})
        """
    )


def test_works_in_every_context(check: Check, other: Callable[[str], None]) -> None:
    other(
        """
        local s = require("struct"){{"n", "be32"}}
        return function(d) d:setstring(0, s:pack{n = s:unpack(d).n + 1}) end
        """
    )
    check(
        """
        for _, context in ipairs{"process", "softirq", "hardirq"} do
            local d = require("data").new(4)
            local runtime = require("lunatik").runtime("other", context)
            runtime:resume(d)
            assert(d:getuint32(0) == 0x01000000, context)
            runtime:stop()
        end
        """
    )
