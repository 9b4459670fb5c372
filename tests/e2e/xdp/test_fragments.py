# SPDX-License-Identifier: GPL-2.0-only
"""Packets that do not lie in one piece, where drivers and kernels leave them so.

veth copies frames of more than a page into several for XDP; generic mode does
so since Linux 6.9, and before that makes one piece of them.
"""

from __future__ import annotations

import pytest
from orders import LOAD, Order, Pair, frame, same
from scapy.utils import checksum
from twins import carry, packed, run

from lab.vm.machine import Machine

SIZE = 9000

BIG = """set -e
ip -n client link set c0 mtu 12000
ip link set r0 mtu 12000
"""

#: Around where the first piece ends, and the second, for all we know.
EDGES = (*range(3440, 3540), *range(7536, 7636))

BACK = ("client", "c0")

pytestmark = [
    pytest.mark.usefixtures("hooks"),
    pytest.mark.machine(cpus=1),
    pytest.mark.limit(300),
]


@pytest.fixture
def large(router: Machine) -> Machine:
    router.succeed(BIG)
    return router


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
end, {dev = "r0", mode = "generic", fallback = "closed"})
"""


# Not native: what veth sends back came to nobody's ears in the client, of any size.
def test_sum_goes_over_all_pieces(large: Machine) -> None:
    frames = [frame(0, (0, 0, 0, 0), size) for size in (1000, 3521, 4001, SIZE - 1, SIZE)]
    large.copy_to(packed(frames), "/tmp/frames")
    run(large, SUM)
    arrived = carry(large, to=BACK)
    assert arrived == [
        sent[:14] + checksum(sent[16:]).to_bytes(2, "big") + sent[16:] for sent in frames
    ]
