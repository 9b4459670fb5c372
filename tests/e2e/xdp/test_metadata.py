# SPDX-License-Identifier: GPL-2.0-only
"""What a script puts before a packet is what eBPF finds there, and the other way round."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from orders import BEFORE, Order, Pair, frame, same, written_down
from twins import HERE, load, packed, send

from lab.testing.bpf import Compiler
from lab.vm.machine import Machine

pytestmark = [
    pytest.mark.usefixtures("hooks"),
    pytest.mark.machine(cpus=1),
    pytest.mark.limit(300),
]

DROP, PASS, TX = 1, 2, 3

WORDS = 8
"""As many are looked at, as in bpf.h."""

#: The twin of meta.bpf.c's program of_frame.
READER = """
local xdp, bpf = require("xdp"), require("bpf")
local action = require("linux.xdp")
local before = bpf.array("{where}/t_before")
xdp.attach(function(ctx, packet)
    if packet:getstring(12, 2) ~= "\\x88\\xb5" then return action.PASS end
    local meta, sum = ctx:meta(), 0
    for at = 0, math.min(#meta, 32) - 4, 4 do sum = sum * 31 + meta:getuint32(at) end
    before:update(packet:getstring(14, 4), string.pack("<i8i8", #meta, sum))
    return action.DROP
end, {{dev = "c0", mode = "native"}})
"""

IN_CLIENT = "nsenter --net=/run/netns/client"


@contextmanager
def behind(machine: Machine, where: str) -> Iterator[int]:
    """A program behind the receiving device's XDP; gives the verdict that leads there."""
    machine.succeed(
        "tc qdisc add dev r0 clsact",
        f"tc filter add dev r0 ingress bpf direct-action object-pinned {where}/progs/of_buffer",
    )
    yield PASS
    machine.succeed("tc qdisc del dev r0 clsact")


@contextmanager
def program_at_the_other_end(machine: Machine, where: str) -> Iterator[int]:
    attached = f"{IN_CLIENT} bpftool net {{}} dev c0"
    machine.succeed(attached.format(f"attach xdpdrv pinned {where}/progs/of_frame"))
    yield TX
    machine.succeed(attached.format("detach xdpdrv"))


@contextmanager
def script_at_the_other_end(machine: Machine, where: str) -> Iterator[int]:
    machine.copy_to(READER.format(where=where).encode(), "/lib/modules/lua/reader.lua")
    machine.succeed(f"{IN_CLIENT} lunatik run reader softirq")
    yield TX
    machine.succeed("lunatik stop reader")


def found(length: int, value: int) -> tuple[int, int]:
    """What is to be written down of so many bytes that begin with a value."""
    total = 0
    for word in range(min(length // 4, WORDS)):
        total = total * 31 + value + word
    return length, total % (1 << 64)


def test_metadata_is_set_and_read_as_by_its_twin(pairs: list[Pair]) -> None:
    draw = random.Random(8)
    lengths = [0, 4, 8, 20, 28, 32, 3, 30, 36, 64, 252, 256, 300, 1000, 0x7FFFFFFF]
    # Some of what is moved has no room, or is no packet any more.
    moves = [0, -4, -20, -150, -250, -1000, 4, 14, 50, 60, 1000]
    orders: list[Order] = [
        (BEFORE, length, (move & 0xFFFFFF) << 8 | DROP, draw.getrandbits(31))
        for length in lengths
        for move in moves
    ]
    for pair in pairs:
        outcomes = pair.outcomes(orders)
        same(orders, outcomes)
        assert {status for status, _ in outcomes["ebpf"]} >= {0, -22}


# In native mode: what a device sends back has no metadata in generic mode. And
# tc does not find it where that had to copy the packet: skb_pp_cow_data() leaves
# out mac_len, by which tc goes back to the link header that it stands before.
@pytest.mark.parametrize("reader", [behind, program_at_the_other_end, script_at_the_other_end])
def test_metadata_goes_on_with_its_packet(
    router: Machine,
    bpf: Compiler,
    reader: Callable[[Machine, str], AbstractContextManager[int]],
) -> None:
    pair = Pair(router, bpf, "native")
    where = load(router, bpf(HERE / "meta.bpf.c"), "meta")
    lengths = [0, 4, 8, 12, 24, 32]
    for turn, who in enumerate(pair.of, start=1):
        # What the other left there is not to be taken for it.
        lengths = lengths[turn:] + lengths[:turn]
        values = [turn << 16 | length << 8 for length in lengths]
        with reader(router, where) as verdict:
            orders = [
                (BEFORE, length, verdict, value)
                for length, value in zip(lengths, values, strict=True)
            ]
            frames = packed(frame(number, order) for number, order in enumerate(orders))
            router.copy_to(frames, "/tmp/frames")
            pair.begin(who)
            send(router)
            pair.end(who)
        seen = written_down(router, f"{where}/t_before", len(orders))
        assert seen == [found(*each) for each in zip(lengths, values, strict=True)], who
