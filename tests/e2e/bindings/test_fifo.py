# SPDX-License-Identifier: GPL-2.0-only
"""fifo: bytes in, the same bytes out, between runtimes."""

from __future__ import annotations

from collections.abc import Callable

Check = Callable[[str], str]


def test_bytes_come_out_in_order(check: Check) -> None:
    check(
        r"""
        local f = require("fifo").new(8)
        f:push("ab") f:push("\0c")
        local s, n = f:pop(3)
        assert(s == "ab\0" and n == 3)
        s, n = f:pop(100)
        assert(s == "c" and n == 1)
        s, n = f:pop(1)
        assert(s == "" and n == 0)
        """
    )


def test_push_is_all_or_nothing(check: Check) -> None:
    check(
        """
        local f = require("fifo").new(8)
        f:push("123456")
        raises("not enough space", f.push, f, "789")
        assert(f:pop(100) == "123456")
        for i = 1, 100 do f:push("wrap" .. i % 10) assert(f:pop(5) == "wrap" .. i % 10) end
        """
    )


def test_closed_is_closed(check: Check) -> None:
    check(
        """
        local f = require("fifo").new(8)
        f:push("x") f:close() f:close()
        raises("closed", f.push, f, "y")
        raises("closed", f.pop, f, 1)
        """
    )


def test_sizes_that_are_none(check: Check) -> None:
    check(
        """
        local fifo = require("fifo")
        for _, size in ipairs{0, -1, 1 << 31, 1 << 32, math.maxinteger, math.mininteger} do
            raises("bad argument", fifo.new, size)
        end
        local f = fifo.new(8)
        for _, size in ipairs{-1, 1 << 32, math.maxinteger, math.mininteger} do
            raises("bad argument", f.pop, f, size)
        end
        raises("fifo expected", f.pop, require("data").new(8), 1)
        """
    )


def test_two_runtimes_talk(check: Check, other: Callable[[str], None]) -> None:
    other("return function(f) local s = f:pop(5) f:push(s:upper()) end")
    check(
        """
        local f = require("fifo").new(64)
        local runtime = require("lunatik").runtime("other", "softirq")
        f:push("hello")
        runtime:resume(f)
        assert(f:pop(5) == "HELLO")
        runtime:stop()
        """
    )
