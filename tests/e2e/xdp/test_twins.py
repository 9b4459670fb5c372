# SPDX-License-Identifier: GPL-2.0-only
"""What a script's maps and helpers do, and what eBPF's do, for the same packets."""

from __future__ import annotations

import random
import re
import struct
from pathlib import Path

import pytest
from twins import (
    HERE,
    MARK,
    ROUTER,
    attach,
    carry,
    detach,
    dump,
    load,
    packed,
    run,
    send,
)

from lab.testing.bpf import compiled
from lab.vm.machine import Machine

TYPE = b"\x88\xb5"

# As in twin.bpf.c.
TABLES = (0, 1, 2)
LISTS = (3, 4)
LOOKUP, UPDATE, DELETE = 0, 8, 16
PUSH, POP, PEEK = 24, 32, 40
REDIRECT, RING, PERF = 48, 49, 50
HEAD, TAIL, META, CSUM, LOAD, STORE = 56, 57, 58, 59, 60, 61

MAPS = ("array", "hash", "lru", "queue", "stack", "outcomes")

pytestmark = [
    pytest.mark.usefixtures("hooks"),
    # Which CPU a packet comes in on decides what an LRU map forgets.
    pytest.mark.machine(cpus=1),
    pytest.mark.limit(300),
]

MODES = ("native", "generic")

#: The bytes of an event, as bpftool shows it.
DATA = re.compile(r'"data":\[([^]]*)\]')

Order = tuple[int, int, int, int]


def frame(number: int, order: Order) -> bytes:
    what, key, flags, value = order
    return ROUTER + MARK + TYPE + struct.pack("<IIIIQ", number, what, key, flags, value) + bytes(30)


class Pair:
    """The program and the script, each with maps of its own, on one wire."""

    def __init__(self, machine: Machine, directory: Path, mode: str) -> None:
        self.machine, self.mode = machine, mode
        program = compiled(HERE / "twin.bpf.c", directory)
        self.of = {who: load(machine, program, f"{who}-{mode}") for who in ("ebpf", "lua")}
        self.script = (HERE / "twin.lua").read_text().replace("MODE", mode)

    def begin(self, who: str) -> None:
        if who == "ebpf":
            attach(self.machine, self.of[who], "twin", mode=self.mode)
        else:
            run(self.machine, self.script.replace("MAPS", self.of[who]))

    def end(self, who: str) -> None:
        if who == "ebpf":
            detach(self.machine, mode=self.mode)
        else:
            self.machine.succeed("lunatik stop filter")

    def outcomes(self, orders: list[Order]) -> dict[str, list[tuple[int, int]]]:
        """What came of each order, (status, value), by whom it was given."""
        frames = packed(frame(number, order) for number, order in enumerate(orders))
        self.machine.copy_to(frames, "/tmp/frames")
        found = {}
        for who, where in self.of.items():
            self.begin(who)
            assert send(self.machine) == len(orders)
            self.end(who)
            rows = [
                bytes(int(byte, 16) for byte in one["value"])
                for one in dump(self.machine, f"{where}/t_outcomes")
            ]
            found[who] = [struct.unpack("<qQ", row) for row in rows[: len(orders)]]
        return found


@pytest.fixture
def pairs(router: Machine, tmp_path: Path) -> list[Pair]:
    """One for each mode, with maps of its own, on one machine."""
    return [Pair(router, tmp_path, mode) for mode in MODES]


def same(orders: list[Order], found: dict[str, list[tuple[int, int]]]) -> None:
    wrong = [
        (number, order, theirs, ours)
        for number, (order, theirs, ours) in enumerate(
            zip(orders, found["ebpf"], found["lua"], strict=True)
        )
        if theirs != ours
    ]
    assert not wrong, wrong[:5]


def test_maps_behave_as_their_twins(pairs: list[Pair]) -> None:
    draw = random.Random(6)
    orders: list[Order] = []
    for _ in range(1500):
        whats = [verb + kind for verb in (LOOKUP, UPDATE, DELETE) for kind in TABLES]
        # More goes in than out, so that they fill up.
        whats += [PUSH + kind for kind in LISTS] * 2
        whats += [verb + kind for verb in (POP, PEEK) for kind in LISTS]
        flags = draw.choice((0, 0, 0, 1, 2, 3))
        orders.append((draw.choice(whats), draw.randrange(12), flags, draw.getrandbits(64)))
    for pair in pairs:
        found = pair.outcomes(orders)
        same(orders, found)
        for verdict in (0, -1, -2, -7, -17, -22):
            assert any(status == verdict for status, _ in found["ebpf"]), verdict
        for name in ("array", "hash", "lru"):
            theirs, ours = (dump(pair.machine, f"{where}/t_{name}") for where in pair.of.values())
            assert theirs == ours, name


def test_packet_helpers_behave_as_their_twins(pairs: list[Pair]) -> None:
    draw = random.Random(7)
    deltas = [-0x7FFFFFFF, -300, -256, -100, -40, -14, -8, -4, -3, -1, 0, 1, 3, 4, 8, 14, 30]
    deltas += [3000, 4096, 0x7FFFFFFF]
    orders: list[Order] = [
        (what, delta & 0xFFFFFFFF, 0, 0) for what in (HEAD, TAIL, META) for delta in deltas
    ]
    # Not of the tail: how far it may grow depends on where in a page the packet came to lie.
    orders += [
        (what, delta, 0, 0) for what in (HEAD, META) for delta in (44, 54, 55, 60, 68, 100, 1000)
    ]
    offsets = [0, 14, 30, 59, 60, 61, 63, 64, 65, 67, 68, 69, 0xFFFF, 0x10000, 0xFFFFFFFF]
    orders += [(what, at, 0, draw.getrandbits(64)) for what in (LOAD, STORE) for at in offsets]
    orders += [
        (CSUM, draw.getrandbits(32), draw.getrandbits(32), draw.getrandbits(64)) for _ in range(20)
    ]
    for pair in pairs:
        found = pair.outcomes(orders)
        same(orders, found)
        assert {status for status, _ in found["ebpf"]} == {0, -13, -22}


def test_redirect_map_sends_where_its_twin_does(pairs: list[Pair]) -> None:
    # Nothing at 0 and 2: the flags' low bits are the action. 9 is out of bounds,
    # 8 and more are flags: 8 sends to all.
    orders = [
        (REDIRECT, key, flags, key)
        for key in (1, 0, 2, 9, 0xFFFFFFFF)
        for flags in (0, 1, 2, 3, 4, 7, 8, 16, 24, 64)
    ]
    frames = packed(frame(number, order) for number, order in enumerate(orders))
    for pair in pairs:
        machine = pair.machine
        index = int(machine.succeed("cat /sys/class/net/r1/ifindex"))
        value = " ".join(str(byte) for byte in index.to_bytes(4, "little"))
        for where in pair.of.values():
            update = f"bpftool map update pinned {where}/t_devices"
            machine.succeed(f"{update} key 1 0 0 0 value {value}")
        machine.copy_to(frames, "/tmp/frames")
        arrived = {}
        for who in pair.of:
            pair.begin(who)
            arrived[who] = carry(machine)
            pair.end(who)
        assert arrived["lua"] == arrived["ebpf"]
        assert len(arrived["ebpf"]) > 4
        same(orders, pair.outcomes(orders))


def test_ring_buffer_gets_the_same_events(pairs: list[Pair]) -> None:
    # More than it has room for.
    orders: list[Order] = [(RING, number, 0, number << 40) for number in range(150)]
    for pair in pairs:
        found = pair.outcomes(orders)
        same(orders, found)
        assert {status for status, _ in found["ebpf"]} == {0, -11}
        pair.machine.copy_to(HERE / "ring.py", "/tmp/ring.py")
        theirs, ours = (
            pair.machine.succeed(f"python3 /tmp/ring.py {where}/t_ring 4096").split()
            for where in pair.of.values()
        )
        assert len(theirs) > 100
        assert ours == theirs


LISTEN = """
bpftool -j map event_pipe pinned {where}/t_perf cpu 0 index 0 > /tmp/events 2>&1 &
echo $! > /tmp/listener
"""
LISTENS = "ls -l /proc/$(cat /tmp/listener)/fd | grep perf_event"
ENOUGH = "kill $(cat /tmp/listener); while [ -d /proc/$(cat /tmp/listener) ]; do sleep 0.1; done"


def test_perf_buffer_gets_the_same_events(pairs: list[Pair]) -> None:
    orders: list[Order] = [(PERF, 0, length, 7) for length in (0, 1, 14, 40, 60, 68, 69, 1000)]
    frames = packed(frame(number, order) for number, order in enumerate(orders))
    for pair in pairs:
        machine = pair.machine
        machine.copy_to(frames, "/tmp/frames")
        events = {}
        for who, where in pair.of.items():
            pair.begin(who)
            # Nobody listens yet.
            send(machine)
            machine.succeed(LISTEN.format(where=where))
            machine.wait_until_succeeds(LISTENS)
            machine.succeed("sleep 1")
            send(machine)
            pair.end(who)
            machine.succeed("sleep 1", ENOUGH)
            events[who] = DATA.findall(machine.succeed("cat /tmp/events"))
        assert len(events["ebpf"]) >= 6
        assert events["lua"] == events["ebpf"]
        assert len({len(event) for event in events["ebpf"]}) >= 4, "the packet is in them"


def test_event_larger_than_a_record_is_refused(pairs: list[Pair]) -> None:
    pair = pairs[0]
    run(
        pair.machine,
        f"""
        local perf = require("bpf").perf("{pair.of["lua"]}/t_perf")
        local bytes = ("x"):rep(70000)
        require("xdp").attach(function(ctx)
            print("event", pcall(ctx.event, ctx, perf, bytes))
            return require("linux.xdp").PASS
        end, {{dev = "r0"}})
        """,
    )
    pair.machine.succeed("ip netns exec client ping -q -c 1 -W 2 192.0.2.2")
    pair.machine.succeed("dmesg | grep 'event.*false.*E2BIG'")


def test_map_lives_as_long_as_its_script(pairs: list[Pair]) -> None:
    pair = pairs[0]
    machine = pair.machine
    where = pair.of["lua"]
    pair.begin("lua")
    number = machine.succeed(f"bpftool map show pinned {where}/t_hash").split(":")[0]
    machine.succeed(f"rm -r {where}", f"bpftool map show id {number}")
    machine.copy_to(packed([frame(0, (UPDATE + 1, 3, 0, 5))]), "/tmp/frames")
    send(machine)
    assert '"value":["0x05"' in machine.succeed(f"bpftool -j map dump id {number}")
    machine.succeed("lunatik stop filter")
    machine.wait_until_succeeds(f"! bpftool map show id {number}")
