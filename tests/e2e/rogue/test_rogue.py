# SPDX-License-Identifier: GPL-2.0-only
"""No script kills the kernel, starves it, or keeps what it took.

Each script of rogues.lua runs in a process runtime and in a packet hook, in
softirq, beside a script that goes on answering. That the kernel didn't splat
is seen to by the lab itself.
"""

from __future__ import annotations

import itertools
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
PAUSE = 0.2

PARAMETERS = "/sys/module/lunatik/parameters"

#: Ends a script within a script.
END = "END-OF-LUA"

#: Instructions of one entry: small, so that a loop is found out soon under emulation.
BUDGET = 1_000_000

#: Bytes that all runtimes together may hold: a few times what a rogue may.
TOTAL = 16 << 20

#: What an entry may be charged, in budgets. One that asks for much at once is charged
#: for it and stopped before it is done; but nothing that is done goes on unnoticed.
OVERDRAFT = 4

BYSTANDER = """
local device = require("device")
local count = 0
device.new{name = "bystander", read = function()
	count = count + 1
	return count .. "\\n", 0
end}
"""

#: What each test finds done: half of its time, where it did that itself.
PREPARED = f"""
cat >/lib/modules/lua/bystander.lua <<'{END}'
{BYSTANDER}
{END}
modprobe -a lunatik lunatik_device lunatik_data lunatik_rcu lunatik_netfilter lunatik_linux
lunatik run bystander </dev/null
head -n 1 /dev/bystander >/dev/null
"""

pytestmark = pytest.mark.machine(prepare=(PREPARED,))

#: Keeps what the rogue has used so far: its entries before, and its loading.
BEGIN = """
local lunatik = require("lunatik")
for _, runtime in ipairs(lunatik.status()) do
	if runtime.name == "rogue" then lunatik._ENV.rogue_began = runtime.instructions end
end"""

STATE = """
local env = require("lunatik")._ENV
print(env.rogue_was_fine)
for _, runtime in ipairs(require("lunatik").status()) do
	if runtime.name == "rogue" then
		print(runtime.state)
		print(runtime.reason)
		print(runtime.memory)
		print(runtime.instructions - env.rogue_began)
		print(runtime.instructions_cap)
	end
end
"""


def ran(machine: Machine) -> float:
    """Seconds of CPU that QEMU has used so far."""
    fields = Path(f"/proc/{machine.body.pid}/stat").read_text().rpartition(")")[2].split()
    user, system = int(fields[11]), int(fields[12])
    return (user + system) / os.sysconf("SC_CLK_TCK")


class Answers:
    """Has the guest's agent ask the bystander all the time; how long it took at worst.

    Counted is the time that the guest ran: a rogue that keeps the agent from
    its CPU uses that time itself, while a busy host takes it from both.

    Attributes:
        slowest: seconds.
        counts: what the bystander answered, one after another.
    """

    def __init__(self, machine: Machine) -> None:
        self.slowest = 0.0
        self.counts: list[int] = []
        self._machine = machine
        self._failure: Exception | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def _ask(self) -> None:
        try:
            self._ask_once()
            while not self._over.wait(PAUSE):
                self._ask_once()
        except Exception as failure:  # whatever it is, watched() raises it
            self._failure = failure

    def _ask_once(self) -> None:
        begin = ran(self._machine)
        answer = self._machine.succeed("head -n 1 /dev/bystander")
        self.slowest = max(self.slowest, ran(self._machine) - begin)
        self.counts.append(int(answer))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Ask as long as the block runs, once at least.

        Raises:
            what asking has raised.
        """
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join()
        if self._failure is not None:
            raise self._failure


#: Prints who holds the module: runtimes and open files, not the modules of bindings.
REFERENCES = """
set -- /sys/module/lunatik/holders/*
read count </sys/module/lunatik/refcnt
echo $((count - $#))
"""

#: Lets go of what the test has put where all see it: it holds the runtimes that did.
FORGET = """
local env = require("lunatik")._ENV
env.rogue_was_fine, env.rogue_may_go, env.rogue_began, env.rogue_breeds = nil
"""


def start(machine: Machine, rogue: Rogue, context: str) -> tuple[int, int]:
    """Load the rogue beside the bystander.

    In one command, as each costs the guest some 50 ms under emulation, and
    there are some hundred rogues.

    Returns:
        The bystander's count, and who held the module before.
    """
    assert END not in rogue.code
    script = f"""
        cd {PARAMETERS}
        cat > /lib/modules/lua/rogue.lua <<'{END}'
{rogue.script(context)}
{END}
        echo {BUDGET} > process_instructions
        echo {rogue.memory} > memory
        echo {TOTAL} > total_memory
        {REFERENCES}
        lunatik run rogue {context} < /dev/null
        head -n 1 /dev/bystander
    """
    done = machine.execute("exec sh -e", input=script)
    assert done.status == 0, done.stderr
    references, count = map(int, done.stdout.split())
    return count, references


def let_go(machine: Machine, context: str) -> str:
    """Call the rogue once; the message that it ended with."""
    if context == "process":
        call = f"lunatik -e '{BEGIN} lunatik._ENV.runtimes.rogue:resume()'"
    else:
        allow = f"lunatik -e '{BEGIN} lunatik._ENV.rogue_may_go = true'"
        call = f"{allow}; dmesg -C; bash -c 'echo > /dev/udp/127.0.0.1/9'; dmesg"
    return machine.execute(f"({call}) 2>&1").stdout


@pytest.mark.limit(180)
@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("rogue", read_rogues(), ids=lambda rogue: rogue.name)
def test_rogue(machine: Machine, kernel: KernelInfo, rogue: Rogue, context: str) -> None:
    """Let one rogue go and judge it.

    The bystander and the agent answer before, after and meanwhile, and what it
    was charged is not many times what it had. Once it is stopped nothing holds it.
    """
    count, references = start(machine, rogue, context)
    answers = Answers(machine)
    with answers.watched():
        said = let_go(machine, context)
    assert answers.slowest < ANSWER * kernel.patience
    assert answers.counts, "the bystander was not asked"

    done = machine.execute("head -n 1 /dev/bystander; exec lunatik -e -", input=STATE)
    assert done.status == 0, done.stderr
    bystander, fine, *state = done.stdout.splitlines()
    served = [count, *answers.counts, int(bystander)]
    assert all(later > earlier for earlier, later in itertools.pairwise(served)), served
    assert len(state) == 5, "the runtime is gone"
    standing, reason, _, charged, budget = state
    if fine == "true":
        assert rogue.ended_well(context, ""), f"it had its way: {said}"
    else:
        message = f"{said}\n{reason}"
        assert rogue.ended_well(context, message), message
    assert (standing == "broken") == (BROKEN in reason)
    if not rogue.wants_memory:  # it is charged for what there is not, too
        assert int(charged) < OVERDRAFT * int(budget)

    if standing == "broken":
        machine.wait_until_succeeds(
            'lunatik -e \'for _, r in ipairs(require("lunatik").status()) do '
            'if r.name == "rogue" then assert(r.memory < 16384) end end\'',
        )
    assert "rogue" not in machine.succeed("lunatik stop rogue && lunatik list")
    machine.wait_until_succeeds(
        f"lunatik -e '{FORGET}'; left=$({REFERENCES}); [ $left -le {references} ]"
    )
