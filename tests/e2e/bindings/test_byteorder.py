# SPDX-License-Identifier: GPL-2.0-only
"""byteorder: what the host, the network and little-endian devices call an integer."""

from __future__ import annotations

from collections.abc import Callable

Check = Callable[[str], str]


def test_network_order_swaps_on_this_host(check: Check) -> None:
    check(
        """
        local b = require("byteorder")
        assert(b.hton16(0x1234) == 0x3412)
        assert(b.hton32(0x12345678) == 0x78563412)
        assert(b.hton64(0x0102030405060708) == 0x0807060504030201)
        assert(b.htobe16(0x1234) == 0x3412 and b.htole16(0x1234) == 0x1234)
        assert(b.htobe32(1) == 0x01000000 and b.htole32(1) == 1)
        """
    )


def test_there_and_back_is_the_same(check: Check) -> None:
    check(
        """
        local b = require("byteorder")
        for _, bits in ipairs{16, 32, 64} do
            local value = 0xf1e2d3c4b5a69788 >> (64 - bits)
            for _, order in ipairs{"be", "le"} do
                local there, back = b["hto" .. order .. bits], b[order .. bits .. "toh"]
                assert(back(there(value)) == value, order .. bits)
            end
            assert(b["ntoh" .. bits](b["hton" .. bits](value)) == value, bits)
        end
        """
    )


def test_bits_that_do_not_fit_are_dropped_and_none_is_a_sign(check: Check) -> None:
    check(
        """
        local b = require("byteorder")
        assert(b.hton16(0xabcd1234) == 0x3412)
        assert(b.hton16(-1) == 0xffff and b.hton32(-1) == 0xffffffff)
        assert(b.hton64(-1) == -1)
        raises("number expected", b.hton16)
        raises("number expected", b.hton32, {})
        """
    )
