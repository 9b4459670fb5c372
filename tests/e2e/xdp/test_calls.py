# SPDX-License-Identifier: GPL-2.0-only
"""A script that eBPF calls: its packet, its time, its CPU, its end; any kernel will do."""

from __future__ import annotations

import struct
from typing import NamedTuple

import pytest
from meanwhile import BUSY, CAME, RESOLUTION, UNLIMITED, UNTIL_IT_CAME, meanwhile
from orders import frame
from twins import HERE, XDP, attach, carry, dump, load, packed, run, send

from lab.testing.bpf import Compiler
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = pytest.mark.limit(120)

two_cpus = pytest.mark.machine(cpus=2)

#: Tells the program what the time is, which CPU it runs on, how often it was called.
SCRIPT = """
local xdp = require("xdp")
local action = require("linux.xdp")
local me, count = xdp.cpu, 0
{before}
xdp.attach(function(packet, told)
    count = count + 1
    told:setint64(0, xdp.ktime())
    told:setuint32(8, me())
    told:setuint32(12, count)
    {body}
    return action.DROP
end)
"""

DROP = 1

#: Of a script that eBPF calls, where there is none.
NONE = -1

SENT = "python3 /tmp/wires.py /tmp/{} client c0"


class Call(NamedTuple):
    """The program's struct call."""

    before: int
    after: int
    left: int
    time: int
    told_cpu: int
    count: int
    cpu: int
    first: int
    second: int
    bytes: int


class Caller:
    """A machine whose r0 runs the program."""

    def __init__(self, machine: Machine, where: str) -> None:
        self.machine, self.where = machine, where

    def run(self, body: str = "", *, before: str = "", options: str = "softirq") -> None:
        """Run a script that does so, with each packet and before the first."""
        text = SCRIPT.format(body=body, before=before)
        run(self.machine, text, name="verdict", options=options)

    def write(self, file: str, *numbers: int, calls: int = 1, stay: int = 0) -> None:
        """Frames of these numbers, for a file of /tmp; what they ask for, and ms."""
        frames = packed(frame(number, (calls, stay, 0, 0)) for number in numbers)
        self.machine.copy_to(frames, f"/tmp/{file}")
        self.machine.copy_to(HERE / "wires.py", "/tmp/wires.py")

    def calls(self, count: int, *, cpu: int = 0, calls: int = 1) -> list[Call]:
        """What came of so many frames, sent by a CPU."""
        self.write("frames", *range(count), calls=calls)
        assert send(self.machine, cpu=cpu) == count
        return self.written_down(count)

    def written_down(self, count: int) -> list[Call]:
        rows = dump(self.machine, f"{self.where}/t_calls")[:count]
        return [
            Call._make(struct.unpack("<QQQQIIIiiI", bytes(int(byte, 16) for byte in row["value"])))
            for row in rows
        ]


def calling(machine: Machine, bpf: Compiler, mode: str = "native") -> Caller:
    machine.module("lunatik_xdp")
    where = load(machine, bpf(HERE / "calls.bpf.c"), "calls")
    attach(machine, where, "calls", mode=mode)
    return Caller(machine, where)


@pytest.fixture
def caller(node: Machine, bpf: Compiler) -> Caller:
    return calling(node, bpf)


@two_cpus
def test_time_and_cpu_are_those_of_the_program(caller: Caller) -> None:
    caller.run()
    for cpu in (0, 1):
        calls = caller.calls(20, cpu=cpu)
        for call in calls:
            assert call.before <= call.time <= call.after
            assert call.told_cpu == call.cpu == cpu
        times = [call.time for call in calls]
        assert times == sorted(times)


@pytest.mark.parametrize("mode", XDP)
def test_script_writes_into_the_packet(node: Machine, bpf: Compiler, mode: str) -> None:
    # In native mode veth sends back to a device that has a program only.
    other = load(node, bpf(HERE / "pass.bpf.c"), "other")
    node.succeed(
        "nsenter --net=/run/netns/client bpftool net attach xdpdrv"
        f" pinned {other}/progs/pass dev c0"
    )
    caller = calling(node, bpf, mode)
    caller.run(
        """
        local size = #packet
        packet:setstring(60, "Lua!")
        packet:setuint8(size - 1, 0x55)
        local beyond = pcall(packet.setuint8, packet, size, 0)
        local moved = pcall(packet.resize, packet, size - 4)
        if not beyond and not moved and #packet == size then return action.TX end
        """
    )
    caller.write("frames", 0, 1)
    arrived = carry(node, to=("client", "c0"))
    sent = [frame(number, (1, 0, 0, 0)) for number in (0, 1)]
    assert arrived == [one[:60] + b"Lua!" + one[64:-1] + b"\x55" for one in sent]
    # And the program goes on with it.
    assert [call.bytes for call in caller.written_down(2)] == [
        int.from_bytes(b"Lua!", "little")
    ] * 2


#: The runtimes of a per-CPU script are loaded in the order of their CPUs.
WHO = """
local shared = require("lunatik")._ENV
local mine = shared.loaded or 0
shared.loaded = mine + 1
me = function() return mine end
"""


@two_cpus
def test_each_cpu_calls_a_runtime_of_its_own(caller: Caller) -> None:
    caller.run(before=WHO, options="softirq percpu")
    for cpu, count, before in ((0, 3, 0), (1, 5, 0), (0, 4, 3), (1, 2, 5)):
        calls = caller.calls(count, cpu=cpu)
        assert [call.count for call in calls] == [before + turn + 1 for turn in range(count)]
        assert {(call.told_cpu, call.cpu, call.first) for call in calls} == {(cpu, cpu, DROP)}


@two_cpus
def test_cpu_without_a_runtime_has_no_script(caller: Caller) -> None:
    first = 'first = require("lunatik").runtime("verdict", "softirq", {cpu = 0})'
    text = SCRIPT.format(body="", before="")
    caller.machine.copy_to(text.encode(), "/lib/modules/lua/verdict.lua")
    run(caller.machine, first, name="first", options="")
    assert [call.first for call in caller.calls(3, cpu=0)] == [DROP] * 3
    assert [call.first for call in caller.calls(3, cpu=1)] == [NONE] * 3


@pytest.mark.machine(cpus=1)
def test_detached_script_is_not_called_again(caller: Caller) -> None:
    # On one CPU nothing comes between the two calls of a packet.
    caller.run("xdp.detach()")
    answers = [(call.first, call.second) for call in caller.calls(3, calls=2)]
    assert answers == [(DROP, NONE), (NONE, NONE), (NONE, NONE)]


#: Frames come in by CPU 0, one after the other, and soon one by CPU 1, whose
#: sender has only waited for it.
AT_ONCE = f"""taskset -pc 1 $$
mkfifo /tmp/late
{SENT.format("late")} &
exec 3>/tmp/late
taskset -c 0 {SENT.format("others")} 3>&- &
{UNTIL_IT_CAME}
cat /tmp/one >&3
exec 3>&-
wait"""


@two_cpus
def test_script_detached_meanwhile_is_not_called(
    node: Machine, bpf: Compiler, kernel: KernelInfo
) -> None:
    # In native mode one CPU at a time has a queue.
    caller = calling(node, bpf, "generic")
    caller.machine.succeed(*UNLIMITED)
    busy = BUSY % (300_000_000 * kernel.patience)
    caller.run(f"""
        if count == 1 then print("{CAME}") end
        if xdp.cpu() == 1 then {busy} xdp.detach() end
    """)
    caller.write("one", 0)
    caller.write("others", *range(1, 50), stay=int(50 * kernel.patience))
    caller.machine.succeed(AT_ONCE, timeout=60)
    one, *others = caller.written_down(50)
    assert one.first == DROP
    (waiting,) = (call for call in others if call.before < one.after < call.after)
    assert waiting.first == NONE
    assert {call.first for call in others if call.after < one.before} == {DROP}
    assert {call.first for call in others if call.before > one.after} == {NONE}


@two_cpus
def test_script_ends_after_the_last_packet_that_called_it(
    caller: Caller, kernel: KernelInfo
) -> None:
    caller.run(f'print("{CAME}")')
    caller.write("frames", 0, stay=int(2000 * kernel.patience))
    before, after = meanwhile(
        caller.machine, packet=SENT.format("frames"), command="lunatik stop verdict >&2"
    )
    (call,) = caller.written_down(1)
    assert call.first == DROP
    assert before < call.left, "the packet was there no more"
    assert call.left < after + RESOLUTION
