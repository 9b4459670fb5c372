# SPDX-License-Identifier: GPL-2.0-only
"""No script kills the kernel, starves it, or keeps what it took.

Each script of rogues.lua runs in a process runtime and in a packet hook, in
softirq, beside a script that goes on answering. That the kernel didn't splat
is seen to by the lab itself.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rogues import BROKEN, CONTEXTS, Rogue, read_rogues

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

#: Seconds of its CPU within which the guest's agent has to answer all the time.
ANSWER = 1.0

#: Seconds between two questions, so that asking is not what the guest is busy with.
PAUSE = 0.1

#: Instructions of one entry: small, so that a loop is found out soon under emulation.
BUDGET = 1_000_000

BYSTANDER = """
local device = require("device")
local count = 0
device.new{name = "bystander", read = function()
	count = count + 1
	return count .. "\\n", 0
end}
"""

STATE = """
local env = require("lunatik")._ENV
print(env.rogue_was_fine)
for _, runtime in ipairs(require("lunatik").status()) do
	if runtime.name == "rogue" then
		print(runtime.state)
		print(runtime.reason)
		print(runtime.memory)
	end
end
"""


def ran(machine: Machine) -> float:
    """Seconds of CPU that QEMU has used so far."""
    fields = Path(f"/proc/{machine.body.pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


class Answers:
    """Asks the guest's agent all the time; how long it took at worst.

    Counted is the time that the guest ran: a rogue that keeps the agent from
    its CPU uses that time itself, while a busy host takes it from both.

    Attributes:
        slowest: seconds.
    """

    def __init__(self, machine: Machine) -> None:
        self.slowest = 0.0
        self._machine = machine
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        while not self._over.wait(PAUSE):
            begin = ran(self._machine)
            self._machine.execute("true")
            self.slowest = max(self.slowest, ran(self._machine) - begin)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask as long as the block runs."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()


def start(machine: Machine, rogue: Rogue, context: str) -> None:
    """Load the rogue, and the bystander beside it."""
    parameters = "/sys/module/lunatik/parameters"
    machine.copy_to(rogue.script(context).encode(), "/lib/modules/lua/rogue.lua")
    machine.copy_to(BYSTANDER.encode(), "/lib/modules/lua/bystander.lua")
    machine.succeed(
        "lunatik run bystander",
        f"echo {BUDGET} > {parameters}/process_instructions",
        f"echo {rogue.memory} > {parameters}/memory",
        f"lunatik run rogue {context}",
    )


@contextmanager
def cleaned(machine: Machine) -> Iterator[None]:
    """The next test on the same machine finds it as this one did."""
    names = ("process_instructions", "memory")
    values = [machine.succeed(f"cat /sys/module/lunatik/parameters/{name}") for name in names]
    machine.lua('local e = require("lunatik")._ENV e.rogue_was_fine, e.rogue_may_go = nil, nil')
    try:
        yield
    finally:
        machine.execute("lunatik stop rogue; lunatik stop bystander")
        for name, value in zip(names, values, strict=True):
            machine.execute(f"echo {value.strip()} > /sys/module/lunatik/parameters/{name}")


def let_go(machine: Machine, context: str) -> str:
    """Call the rogue once; the message that it ended with."""
    if context == "process":
        call = "lunatik -e 'require(\"lunatik\")._ENV.runtimes.rogue:resume()'"
    else:
        machine.lua('require("lunatik")._ENV.rogue_may_go = true')
        call = "dmesg -C; bash -c 'echo > /dev/udp/127.0.0.1/9'; dmesg"
    done = machine.execute(f"({call}) 2>&1")
    return done.stdout


@contextmanager
def watch_bystander(machine: Machine, kernel: KernelInfo) -> Iterator[None]:
    """The bystander and the agent answer before, after and in the block."""
    before = int(machine.succeed("head -n 1 /dev/bystander"))
    answers = Answers(machine)
    with answers.watched():
        yield
    assert int(machine.succeed("head -n 1 /dev/bystander")) > before
    assert answers.slowest < ANSWER * kernel.patience


@pytest.mark.limit(180)
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("rogue", read_rogues(), ids=lambda rogue: rogue.name)
def test_rogue(machine: Machine, kernel: KernelInfo, rogue: Rogue, context: str) -> None:
    with cleaned(machine):
        attempt(machine, kernel, rogue, context)


def attempt(machine: Machine, kernel: KernelInfo, rogue: Rogue, context: str) -> None:
    """Run one rogue and judge it."""
    start(machine, rogue, context)
    with watch_bystander(machine, kernel):
        said = let_go(machine, context)

    fine, *state = machine.lua(STATE).splitlines()
    assert len(state) == 3, "the runtime is gone"
    standing, reason, _ = state
    if fine == "true":
        assert rogue.ended_well(context, ""), f"it had its way: {said}"
    else:
        message = f"{said}\n{reason}"
        assert rogue.ended_well(context, message), message
    assert (standing == "broken") == (BROKEN in reason)

    if standing == "broken":
        machine.wait_until_succeeds(
            'lunatik -e \'for _, r in ipairs(require("lunatik").status()) do '
            'if r.name == "rogue" then assert(r.memory < 16384) end end\'',
        )
    machine.succeed("lunatik stop rogue")
    assert "rogue" not in machine.succeed("lunatik list")
