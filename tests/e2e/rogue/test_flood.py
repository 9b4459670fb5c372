# SPDX-License-Identifier: GPL-2.0-only
"""A hook that never breaks its budget, and yet would take the machine.

It spends most of its budget on each packet of a flood. Its share of the CPU
over time is what stops it: beyond that the hook does what it declared.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_rogue import BYSTANDER, Answers

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

FLOOD = Path(__file__).with_name("flood.py")
SECONDS = 8

#: What a softirq runtime may use unless somebody says otherwise, in per cent.
SHARE = 25

#: A second's worth may be saved up, and spent at once.
SAVED = 1.0

SCRIPT = """
local netfilter, nf = require("netfilter"), require("linux.nf")
netfilter.register{
	hook = function()
		for i = 1, %d do end
		return nf.action.ACCEPT
	end,
	pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN, priority = nf.ip.pri.FILTER,
	fallback = "%s",
}
"""

#: Turns of the loop: each is charged two instructions, the budget is 200000.
TURNS = 90_000

#: What interrupt runtimes may use of a CPU together, unless somebody says otherwise.
TOTAL = 75

#: Uses half of its CPU, by the clock.
HOG = """
local linux = require("linux")
require("ticker").new(10, function()
	local began = linux.time()
	while linux.time() - began < 5000000 do end
end)
"""

COUNTER = """
local env, count = require("lunatik")._ENV, 0
require("ticker").new(10, function() count = count + 1 env.count = count end)
"""

START = """
local lunatik = require("lunatik")
lunatik._ENV.counter = lunatik.runtime("counter", "softirq", {cpu = 0})
lunatik._ENV.hog = lunatik.runtime("hog", "softirq", {cpu = 0, share = 100, instructions = 1 << 40})
"""

EACH_TICK = """
require("ticker").new(1, function() for i = 1, %d do end end)
"""

TIMES = """
local linux = require("linux")
local spent, throttled = 0, 0
for _, each in ipairs(require("lunatik").status()) do
	if each.context == "softirq" then
		spent, throttled = spent + each.time, throttled + each.throttled
	end
end
return spent, throttled, linux.time()
"""

STATE = """
local linux = require("linux")
for _, each in ipairs(require("lunatik").status()) do
	if each.name == "flooded" then
		return each.state, each.time, each.entries, each.throttled, each.errors, linux.time()
	end
end
"""


def state(machine: Machine) -> tuple[str, list[int]]:
    """The runtime's state, and its figures: time, entries, throttled, errors, now."""
    word, *figures = machine.lua(STATE).split()
    return word, [int(figure) for figure in figures]


@pytest.mark.slow
@pytest.mark.limit(120)
@pytest.mark.parametrize("fallback", ["open", "closed"])
def test_flood(machine: Machine, kernel: KernelInfo, fallback: str) -> None:
    machine.copy_to((SCRIPT % (TURNS, fallback)).encode(), "/lib/modules/lua/flooded.lua")
    machine.copy_to(BYSTANDER.encode(), "/lib/modules/lua/bystander.lua")
    machine.copy_to(FLOOD, "/tmp/flood.py")
    machine.succeed("lunatik run bystander", "lunatik run flooded softirq")

    _, before = state(machine)
    answers = Answers(machine)
    with answers.watched():
        flood = machine.succeed(f"python3 /tmp/flood.py {SECONDS}", timeout=90)
    standing, after = state(machine)

    spent, entries, throttled, errors, passed = (b - a for a, b in zip(before, after, strict=True))
    sent, received = map(int, flood.split())
    share = 100 * spent / (passed + SAVED * 1e9)
    print(
        f"{sent} sent, {received} received, {entries} entries, {throttled} refused, {share:.1f} %"
    )
    assert standing == "running"
    assert errors == 0
    assert entries > 0
    assert throttled > entries / 4, "the flood was none"
    assert share < SHARE * 1.1
    assert answers.slowest < kernel.patience
    if fallback == "open":
        assert received > entries
    else:
        assert received <= entries


@pytest.mark.slow
@pytest.mark.limit(120)
def test_many_together(machine: Machine, kernel: KernelInfo) -> None:
    """Each keeps to its share, and there are more of them than a CPU has.

    They run at each tick, on the way out of its interrupt: not where the
    scheduler would have them take turns with others.
    """
    machine.copy_to((EACH_TICK % TURNS).encode(), "/lib/modules/lua/each_tick.lua")
    machine.copy_to(BYSTANDER.encode(), "/lib/modules/lua/bystander.lua")
    machine.succeed("lunatik run bystander")
    for number in range(8):
        machine.copy_to('require("each_tick")', f"/lib/modules/lua/tick{number}.lua")
        machine.succeed(f"lunatik run tick{number} softirq")

    before = [int(figure) for figure in machine.lua(TIMES).split()]
    answers = Answers(machine)
    with answers.watched():
        machine.succeed(f"sleep {SECONDS}", timeout=90)
    after = [int(figure) for figure in machine.lua(TIMES).split()]

    spent, throttled, passed = (b - a for a, b in zip(before, after, strict=True))
    share = 100 * spent / (passed + SAVED * 1e9)
    print(f"{throttled} refused, {share:.1f} %")
    assert throttled, "the flood was none"
    assert share < TOTAL * 1.1
    assert answers.slowest < 3 * kernel.patience


@pytest.mark.fresh
def test_what_one_owes_is_soon_paid(machine: Machine) -> None:
    """One that may use all of a CPU uses more than all together may: others pay for it."""
    machine.copy_to(HOG.encode(), "/lib/modules/lua/hog.lua")
    machine.copy_to(COUNTER.encode(), "/lib/modules/lua/counter.lua")
    machine.succeed("echo 10 > /sys/module/lunatik/parameters/interrupt_total")
    machine.lua(START)
    machine.succeed("sleep 3")
    count = "return require('lunatik')._ENV.count or 0"
    before = int(machine.lua(count))
    machine.succeed("sleep 0.3")
    assert int(machine.lua(count)) == before, "it was not refused"
    machine.lua("require('lunatik')._ENV.hog:stop()")
    # Nine seconds of what all may use.
    machine.succeed("sleep 3")
    assert int(machine.lua(count)) > before
