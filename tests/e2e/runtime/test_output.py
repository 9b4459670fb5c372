# SPDX-License-Identifier: GPL-2.0-only
"""What interrupt scripts write holds no CPU for long, however slow the console is."""

from __future__ import annotations

import pytest

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


def test_who_has_a_cpu_of_its_own_may_write_more(machine: Machine) -> None:
    machine.copy_to(CHATTERBOX.encode(), "/lib/modules/lua/chatterbox.lua")
    machine.lua(
        """
        local runtime = require("lunatik").runtime("chatterbox", "process")
        pcall(runtime.resume, runtime)
        """
    )
    assert int(machine.succeed(SAID)) == 50
