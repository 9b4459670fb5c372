# SPDX-License-Identifier: GPL-2.0-only
"""data: bytes in host order, and every way to miss them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.vm.errors import CommandFailed
from lab.vm.machine import Machine

Check = Callable[[str], str]


def test_integers_of_every_width_come_back(check: Check) -> None:
    check(
        """
        local d = require("data").new(16)
        local function trip(kind, value, expected)
            d["set" .. kind](d, 3, value)
            local got = d["get" .. kind](d, 3)
            assert(got == expected, kind .. ": " .. got)
        end
        trip("byte", 0xff, 255)
        trip("int8", 0xff, -1)     trip("uint8", -1, 255)
        trip("int16", 0x8000, -32768)  trip("uint16", -1, 65535)
        trip("int32", -5, -5)      trip("uint32", -1, 0xffffffff)
        trip("int64", math.mininteger, math.mininteger)
        trip("number", math.maxinteger, math.maxinteger)
        """
    )


def test_bytes_lie_as_the_host_has_them(check: Check) -> None:
    check(
        r"""
        local d = require("data").new(8)
        d:setuint32(2, 0x01020304)
        assert(tostring(d) == "\0\0\4\3\2\1\0\0")
        assert(d:getstring(2, 4) == "\4\3\2\1" and d:getstring(6) == "\0\0")
        d:setstring(1, "a\0b")
        assert(d:getstring(0, 4) == "\0a\0b" and #d == 8)
        """
    )


@pytest.mark.parametrize("bits", [8, 16, 32, 64])
def test_no_offset_leads_outside(check: Check, bits: int) -> None:
    check(
        f"""
        local d = require("data").new(16)
        local width = {bits} // 8
        for _, kind in ipairs{{"int"}} do
            local get, set = d["get" .. kind .. {bits}], d["set" .. kind .. {bits}]
            for _, offset in ipairs{{-1, -width, 16, 16 - width + 1, 1 << 31, 1 << 32,
                    (1 << 32) - width, math.maxinteger, math.maxinteger - width + 1,
                    math.mininteger}} do
                raises("out of bounds", get, d, offset)
                raises("out of bounds", set, d, offset, 0)
            end
            set(d, 16 - width, 1)
            assert(get(d, 16 - width) == 1)
        end
        """
    )


def test_no_length_leads_outside(check: Check) -> None:
    check(
        """
        local d = require("data").new(16)
        for _, pair in ipairs{{0, 17}, {1, 16}, {16, 1}, {17, 0}, {-1, 1}, {-1, 2},
                {math.maxinteger, 1}, {math.maxinteger, 2147483647}, {math.mininteger, 0},
                {0, -1}, {0, 1 << 31}, {0, 1 << 32}, {0, math.maxinteger},
                {1 << 32, 4}} do
            raises("out of bounds", d.getstring, d, table.unpack(pair))
            raises("out of bounds", d.checksum, d, table.unpack(pair))
        end
        raises("out of bounds", d.getstring, d, 17)
        raises("out of bounds", d.setstring, d, 15, "ab")
        raises("out of bounds", d.setstring, d, -1, "a")
        raises("out of bounds", d.setstring, d, math.maxinteger, "ab")
        assert(d:getstring(16) == "" and d:getstring(16, 0) == "")
        d:setstring(16, "")
        """
    )


def test_resize_keeps_what_fits_and_clears_the_rest(check: Check) -> None:
    check(
        r"""
        local d = require("data").new(4)
        d:setstring(0, "wxyz")
        d:resize(2) assert(tostring(d) == "wx")
        raises("out of bounds", d.getbyte, d, 2)
        d:resize(4) assert(tostring(d) == "wx\0\0")
        d:resize(0) assert(tostring(d) == "" and #d == 0)
        raises("out of bounds", d.getbyte, d, 0)
        for _, size in ipairs{-1, 1 << 40, math.maxinteger, math.mininteger} do
            raises("bad argument", d.resize, d, size)
            raises("bad argument", require("data").new, size)
        end
        """
    )


def test_checksum_is_that_of_the_internet(check: Check) -> None:
    # RFC 1071's own example: 0001 f203 f4f5 f6f7 sum to ddf2.
    check(
        r"""
        local d = require("data").new(10)
        d:setstring(1, "\x00\x01\xf2\x03\xf4\xf5\xf6\xf7")
        local sum = require("byteorder").ntoh16(d:checksum(1, 8))
        assert(sum == 0xffff ~ 0xddf2, ("%x"):format(sum))
        d:setstring(0, ("\0"):rep(10))
        assert(d:checksum() == 0xffff and d:checksum(3, 0) == 0xffff)
        """
    )


def test_methods_refuse_objects_of_another_class(check: Check) -> None:
    check(
        """
        local data, fifo = require("data"), require("fifo")
        local d, f = data.new(8), fifo.new(8)
        for _, wrong in ipairs{f, require("completion").new(), io or {}, "text", 7, d.getbyte} do
            raises("data expected", d.getbyte, wrong, 0)
            raises("data expected", d.resize, wrong, 1)
        end
        raises("fifo expected", f.push, d, "x")
        raises("data expected", d.getbyte, nil, 0)
        """
    )


def test_a_metatable_gives_nothing_away(check: Check) -> None:
    check(
        """
        local d = require("data").new(8)
        assert(getmetatable(d) == false)
        assert(d.__gc == nil and d.__index == nil and d.__close == nil)
        raises("", function() d.getbyte = print end)
        """
    )


def test_is_shared_between_runtimes(check: Check, other: Callable[[str], None]) -> None:
    other("return function(d) d:setuint32(0, d:getuint32(0) + 1) return d end")
    check(
        """
        local d = require("data").new(4)
        d:setuint32(0, 41)
        local runtime = require("lunatik").runtime("other")
        local back = runtime:resume(d)
        assert(d:getuint32(0) == 42 and back == d)
        runtime:stop()
        assert(d:getuint32(0) == 42 and back:getuint32(0) == 42)
        """
    )


def test_outlives_the_runtime_that_made_it(check: Check, other: Callable[[str], None]) -> None:
    other('return function() local d = require("data").new(64) d:setstring(0, "kept") return d end')
    check(
        """
        local runtime = require("lunatik").runtime("other")
        local d = runtime:resume()
        runtime:stop() runtime = nil
        collectgarbage() collectgarbage()
        assert(d:getstring(0, 4) == "kept")
        """
    )


def test_counts_against_the_memory_cap(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="not enough memory"):
        machine.lua(
            """
            local data, all = require("data"), {}
            for i = 1, 1 << 20 do all[i] = data.new(1 << 20) end
            """
        )
    assert machine.lua("return 1") == "1"
