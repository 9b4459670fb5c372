# SPDX-License-Identifier: GPL-2.0-only
"""What interrupt scripts write holds no CPU for long, however slow the console is."""

from __future__ import annotations

import pytest
from counters import uptime

from lab.vm.machine import Machine

#: Resumed, it runs as in an interrupt.
CHATTERBOX = """
return function()
    for number = 1, 50 do print(("x"):rep(700)) end
    error("and fails")
end
"""

#: Bytes in five seconds, lunatik-src/core/output.c.
ALLOWED = 8 << 10

SAID = "dmesg | grep -c ': xxx' || true"


@pytest.mark.fresh
@pytest.mark.parametrize("context", ["softirq", "hardirq"])
def test_all_interrupt_scripts_share_what_they_may_write(machine: Machine, context: str) -> None:
    machine.copy_to(CHATTERBOX.encode(), "/lib/modules/lua/chatterbox.lua")
    failed = machine.lua(
        f"""
        local lunatik, failed = require("lunatik"), 0
        for number = 1, 4 do
            local runtime = lunatik.runtime("chatterbox", "{context}")
            failed = failed + (pcall(runtime.resume, runtime) and 0 or 1)
        end
        return failed
        """
    )
    assert failed == "4"
    assert 700 * int(machine.succeed(SAID)) <= ALLOWED
    machine.succeed("dmesg | grep 'interrupt runtimes have written what they may'")
    machine.succeed("sleep 5.1")
    machine.lua(
        f"""
        local runtime = require("lunatik").runtime("chatterbox", "{context}")
        pcall(runtime.resume, runtime)
        """
    )
    assert ALLOWED < 700 * int(machine.succeed(SAID)) <= 2 * ALLOWED


@pytest.mark.fresh
def test_ends_that_others_bring_about_are_bounded_too(machine: Machine) -> None:
    """Each is a runtime of its own, and its first end."""
    machine.copy_to(b"return function() while true do end end", "/lib/modules/lua/burn.lua")
    began = uptime(machine)
    machine.lua(
        """
        local lunatik, ended = require("lunatik"), 0
        for number = 1, 400 do
            local runtime = lunatik.runtime("burn", "softirq", {instructions = 20000})
            ended = ended + (pcall(runtime.resume, runtime) and 0 or 1)
            runtime:stop()
        end
        assert(ended == 400)
        """,
        timeout=100,
    )
    told = machine.succeed("dmesg | sed 's/^[^]]*] //' | grep 'burn: stopped'")
    assert len(told) <= ALLOWED * (1 + (uptime(machine) - began) // 5)


def test_warning_is_one_line(machine: Machine) -> None:
    machine.lua(r'warn("one\nforged: another\r", "\27[2Jmore")')
    machine.wait_until_succeeds("dmesg | grep 'lunatik: warning: one forged: another *.2Jmore'")


def test_who_has_a_cpu_of_its_own_may_write_more(machine: Machine) -> None:
    machine.copy_to(CHATTERBOX.encode(), "/lib/modules/lua/chatterbox.lua")
    machine.lua(
        """
        local runtime = require("lunatik").runtime("chatterbox", "process")
        pcall(runtime.resume, runtime)
        """
    )
    assert int(machine.succeed(SAID)) == 50
