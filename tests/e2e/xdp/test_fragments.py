# SPDX-License-Identifier: GPL-2.0-only
"""Packets that do not lie in one piece, where drivers and kernels leave them so.

veth copies frames of more than a page into several for XDP; generic mode does
so since Linux 6.9, and before that makes one piece of them.
"""

from __future__ import annotations

import random

import pytest
from orders import BACK, LOAD, STORE, TAIL, Order, Pair, frame, same
from scapy.utils import checksum
from twins import HERE, XDP, carry, load, packed, run, send

from lab.testing.bpf import Compiler
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

SIZE = 9000

BIG = """set -e
ip -n client link set c0 mtu 12000
ip link set r0 mtu 12000
"""

#: Around where the first piece ends, and the second, for all we know.
EDGES = (*range(3440, 3540), *range(7536, 7636))

#: Where they do end: a page without room in front and skb_shared_info, and a page more.
FIRST, SECOND = 3520, 7616

LONG = SECOND + 3000
"""A frame whose third piece takes a page for itself; that of SIZE shares one."""

modes = pytest.mark.parametrize("mode", XDP)

pytestmark = [
    pytest.mark.usefixtures("hooks"),
    pytest.mark.machine(cpus=1),
    pytest.mark.limit(300),
]


@pytest.fixture
def large(router: Machine) -> Machine:
    router.succeed(BIG)
    return router


@pytest.fixture
def heard(large: Machine, bpf: Compiler) -> Machine:
    """One in which the client hears what is sent back.

    From native mode veth sends to a device that has a program of its own only
    (veth_xdp_flush); NAPI alone, as with GRO, leaves the frames in the ring.
    """
    other = load(large, bpf(HERE / "twin.bpf.c"), "other")
    large.succeed(
        f"nsenter --net=/run/netns/client bpftool net attach xdpdrv pinned {other}/progs/let_in"
        " dev c0"
    )
    return large


def loaded(at: int, number: int, order: Order) -> tuple[int, int]:
    """What a LOAD of four bytes must give."""
    whole = frame(number, order, SIZE)
    if at + 4 > SIZE:
        return -22, 0
    return 0, int.from_bytes(whole[at : at + 4], "little")


@pytest.mark.usefixtures("large")
def test_pieces_are_read_as_one(pairs: list[Pair]) -> None:
    offsets = [*EDGES, *range(0, SIZE, 211), SIZE - 4, SIZE - 3, SIZE, 0xFFFF]
    orders: list[Order] = [(LOAD, at, 0, 0) for at in offsets]
    wanted = [loaded(at, number, orders[number]) for number, at in enumerate(offsets)]
    for pair in pairs:
        found = pair.outcomes(orders, SIZE)
        assert found["lua"] == wanted
        same(orders, found)


SUM = """
local action = require("linux.xdp")
require("xdp").attach(function(ctx, packet)
    if #packet < 1000 or packet:getstring(12, 2) ~= "\\x88\\xb5" then return action.PASS end
    packet:setuint16(14, packet:checksum(16))
    return action.TX
end, {dev = "r0", mode = "%s", fallback = "closed"})
"""


@modes
def test_sum_goes_over_all_pieces(heard: Machine, mode: str) -> None:
    frames = [frame(0, (0, 0, 0, 0), size) for size in (1000, 3521, 4001, SIZE - 1, SIZE)]
    heard.copy_to(packed(frames), "/tmp/frames")
    run(heard, SUM % mode)
    arrived = carry(heard, to=("client", "c0"))
    assert arrived == [
        sent[:14] + checksum(sent[16:]).to_bytes(2, "big") + sent[16:] for sent in frames
    ]


def stored(number: int, order: Order, size: int) -> tuple[int, bytes]:
    """What a STORE of eight bytes must give, and the frame that it leaves."""
    _, at, _, value = order
    whole = frame(number, order, size)
    if at + 8 > size:
        return -22, whole
    return 0, whole[:at] + value.to_bytes(8, "little") + whole[at + 8 :]


@modes
def test_writing_goes_across_pieces(heard: Machine, bpf: Compiler, mode: str) -> None:
    """Each way that eight bytes can lie over a border; the last ones, and one past them."""
    draw = random.Random(31)
    offsets = [
        *(edge - 8 + step for edge in (FIRST, SECOND) for step in range(9)),
        *range(40, SIZE, 499),
        *(SIZE - 9, SIZE - 8, SIZE - 7, SIZE - 1, SIZE, 0xFFFF),
    ]
    orders: list[Order] = [(STORE, at, BACK, draw.getrandbits(64)) for at in offsets]
    wanted = [stored(number, order, SIZE) for number, order in enumerate(orders)]
    pair = Pair(heard, bpf, mode)
    for who in pair.of:
        outcomes, arrived = pair.sent_back(who, orders, SIZE)
        assert outcomes == [(status, 0) for status, _ in wanted], who
        assert arrived == [left for _, left in wanted], who


def cut(orders: list[Order], size: int) -> tuple[list[int], list[bytes]]:
    """The lengths that TAIL must leave, and the frames."""
    left = []
    for number, order in enumerate(orders):
        away = (1 << 32) - order[1]
        whole = frame(number, order, size)
        left.append(whole[: size - away] if size - away >= 14 else whole)
    return [len(one) for one in left], left


def tails(*away: int, flags: int = BACK) -> list[Order]:
    return [(TAIL, -count & 0xFFFFFFFF, flags, 0) for count in away]


def lends_from_pools(kernel: KernelInfo) -> bool:
    """Whether veth and generic XDP copy large packets into pages of a page pool."""
    return kernel.line >= (6, 9)


# From third pieces that have a page of their own: a program is wrong about whose
# that is, but nobody else has anything in it.
@modes
@pytest.mark.parametrize("who", ["ebpf", "lua"])
@pytest.mark.fresh
def test_adjust_tail_on_a_packet_in_pieces(
    heard: Machine, bpf: Compiler, kernel: KernelInfo, mode: str, who: str
) -> None:
    if who == "ebpf" and lends_from_pools(kernel) and kernel.has("DEBUG_VM"):
        pytest.skip("this kernel tells of what a program does there: see below")
    third, two = LONG - SECOND, LONG - FIRST
    orders = tails(1, third - 1, third, third + 1, two - 1, two, two + 1, LONG - 60, LONG - 13)
    lengths, left = cut(orders, LONG)
    outcomes, arrived = Pair(heard, bpf, mode).sent_back(who, orders, LONG)
    assert [status for status, _ in outcomes] == [0] * 8 + [-22]
    assert [value >> 32 for _, value in outcomes] == lengths
    assert [len(one) for one in arrived] == lengths
    assert arrived == left


# The third piece of these shares its page with those of others, as a program
# that cuts it off finds out: the pool gives out parts of a page that is free.
@modes
@pytest.mark.amount(400, few=100)
@pytest.mark.fresh
def test_script_cuts_off_what_shares_a_page(
    heard: Machine, bpf: Compiler, mode: str, amount: int
) -> None:
    third, two = SIZE - SECOND, SIZE - FIRST
    away = (1, third, third - 1, third + 1, third, two, two + 1, SIZE - 60)
    orders = tails(*(away[number % len(away)] for number in range(amount)))
    lengths, left = cut(orders, SIZE)
    pair = Pair(heard, bpf, mode)
    outcomes, arrived = pair.sent_back("lua", orders, SIZE)
    assert [value >> 32 for status, value in outcomes if not status] == lengths
    assert arrived == left
    # They are dropped this time: all that is left goes back to where it came from.
    assert [
        value >> 32 for _, value in pair.sent_back("lua", [(*o[:2], 0, 0) for o in orders], SIZE)[0]
    ] == lengths


CUTTER = f"""
local action = require("linux.xdp")
require("xdp").attach(function(ctx, packet)
    if #packet == {SIZE} then ctx:adjust_tail({SECOND - SIZE}) end
    return action.PASS
end, {{dev = "c0", mode = "native", fallback = "closed"}})
"""


# Of what veth has sent back the first pages are no pool's any more, unlike one
# that the third piece shares; and each piece is held as pages of no pool are.
@pytest.mark.fresh
def test_pieces_that_were_sent_back_are_cut_off(large: Machine, bpf: Compiler) -> None:
    large.copy_to(CUTTER.encode(), "/lib/modules/lua/cutter.lua")
    large.succeed("ip netns exec client lunatik run cutter softirq")
    orders: list[Order] = [(STORE, 100, BACK, number) for number in range(200)]
    outcomes, arrived = Pair(large, bpf, "native").sent_back("ebpf", orders, SIZE)
    assert outcomes == [(0, 0)] * len(orders)
    assert arrived == [
        stored(number, order, SIZE)[1][:SECOND] for number, order in enumerate(orders)
    ]


ALLOCATED = "ethtool -S r0 | awk '$1 == \"rx_pp_alloc_slow:\" { print $2 }'"


@pytest.mark.usefixtures("large")
def test_pieces_go_back_to_their_pool(pairs: list[Pair], kernel: KernelInfo) -> None:
    """A pool that gets its pages back need not ask the allocator for others."""
    if not lends_from_pools(kernel) or not kernel.has("PAGE_POOL_STATS"):
        pytest.skip("veth has no page pool here, or nobody counts")
    (pair,) = (pair for pair in pairs if pair.mode == "native")
    machine = pair.machine
    orders = tails(*[LONG - SECOND] * 64, flags=0)
    frames = packed(frame(number, order, LONG) for number, order in enumerate(orders))
    machine.copy_to(frames, "/tmp/frames")
    pair.begin("lua")
    send(machine)
    before = int(machine.succeed(ALLOCATED))
    assert before > 0
    for _ in range(4):
        send(machine)
    assert int(machine.succeed(ALLOCATED)) == before
    pair.end("lua")


# When this is not seen any more, the kernel has been put right, and what the
# binding does about it can go.
@pytest.mark.splat("Bad page state")
@pytest.mark.fresh
def test_program_frees_a_page_that_is_its_pools(
    large: Machine, bpf: Compiler, kernel: KernelInfo
) -> None:
    """The kernel's own fault, without any Lua."""
    if not lends_from_pools(kernel) or not kernel.has("DEBUG_VM"):
        pytest.skip("this kernel does nothing wrong, or does not tell")
    pair = Pair(large, bpf, "generic")
    frames = [frame(number, order, LONG) for number, order in enumerate(tails(3000, flags=0))]
    large.copy_to(packed(frames), "/tmp/frames")
    pair.begin("ebpf")
    send(large)
