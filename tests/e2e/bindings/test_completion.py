# SPDX-License-Identifier: GPL-2.0-only
"""completion: waiting ends by an event, a limit, or the end of the script; nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable

from lab.vm.machine import Machine

Check = Callable[[str], str]


def test_what_was_completed_is_waited_for_once_each(check: Check) -> None:
    check(
        """
        local c = require("completion").new()
        c:complete() c:complete()
        assert(c:wait(0) == true and c:wait() == true)
        local ok, why = c:wait(10)
        assert(ok == nil and why == "timeout")
        """
    )


def test_the_limit_is_in_milliseconds(check: Check) -> None:
    spent = check(
        """
        local linux = require("linux")
        local before = linux.time()
        assert(select(2, require("completion").new():wait(200)) == "timeout")
        return (linux.time() - before) // 1000000
        """
    )
    assert int(spent) >= 195


def test_limits_that_are_none(check: Check) -> None:
    check(
        """
        local c = require("completion").new()
        for _, ms in ipairs{-1, 1 << 31, math.mininteger, math.maxinteger} do
            raises("bad argument", c.wait, c, ms)
        end
        raises("completion expected", c.wait, require("data").new(8), 1)
        """
    )


def test_an_interrupt_runtime_completes_and_may_not_wait(
    check: Check, other: Callable[[str], None]
) -> None:
    other("return function(c) raises('sleep', c.wait, c, 1) c:complete() end")
    check(
        """
        local c = require("completion").new()
        local runtime = require("lunatik").runtime("other", "hardirq")
        runtime:resume(c)
        assert(c:wait(0))
        runtime:stop()
        """
    )


def test_stopping_the_script_ends_a_wait_without_limit(
    machine: Machine, other: Callable[[str], None]
) -> None:
    other(
        """
        local c = require("completion").new()
        return function() print("woken by", select(2, c:wait())) end
        """
    )
    machine.succeed("lunatik spawn other")
    started = time.monotonic()
    machine.succeed("lunatik stop other")
    assert time.monotonic() - started < 8
    machine.fail("lunatik list | grep -q other")
