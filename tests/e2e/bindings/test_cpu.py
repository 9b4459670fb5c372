# SPDX-License-Identifier: GPL-2.0-only
"""cpu: which there are; numbers that are none of them."""

from __future__ import annotations

from collections.abc import Callable

from lab.vm.machine import Machine

Check = Callable[[str], str]


def test_numbers_are_those_of_sysfs(machine: Machine) -> None:
    counted = machine.lua(
        """
        local cpu = require("cpu")
        return cpu.num_online(), cpu.num_present(), cpu.num_possible()
        """
    )
    online = int(machine.succeed("nproc --all"))
    assert [int(number) for number in counted.split()][:2] == [online, online]


def test_foreach_visits_each_once_in_order(check: Check) -> None:
    check(
        """
        local cpu = require("cpu")
        for _, kind in ipairs{"possible", "present", "online"} do
            local seen = {}
            cpu["foreach_" .. kind](function(n) seen[#seen + 1] = n end)
            assert(#seen == cpu["num_" .. kind](), kind)
            for i = 2, #seen do assert(seen[i] > seen[i - 1], kind) end
        end
        """
    )


def test_an_error_in_the_callback_ends_the_walk(check: Check) -> None:
    check(
        """
        local count = 0
        raises("enough", require("cpu").foreach_online, function() count = count + 1
            error("enough") end)
        assert(count == 1)
        raises("function expected", require("cpu").foreach_online)
        """
    )


def test_idle_time_of_a_cpu_goes_on(machine: Machine) -> None:
    def busy() -> int:
        return int(machine.lua('local s = require("cpu").stats(0) return s.user + s.system'))

    before = busy()
    machine.succeed("timeout 1 sh -c 'while :; do :; done' || true")
    assert busy() > before


def test_cpus_that_are_not_there(check: Check) -> None:
    check(
        """
        local cpu = require("cpu")
        for _, n in ipairs{-1, 4096, 1 << 31, 1 << 32, math.maxinteger, math.mininteger} do
            raises("bad argument #1", cpu.stats, n)
        end
        assert(cpu.stats(0).idle)
        """
    )
