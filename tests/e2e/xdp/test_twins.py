# SPDX-License-Identifier: GPL-2.0-only
"""What a script's maps and helpers do, and what eBPF's do, for the same packets."""

from __future__ import annotations

import ipaddress
import random
import re

import pytest
from orders import (
    CPU,
    CSUM,
    CSUMS,
    DELETE,
    FIB,
    HEAD,
    IFINDEX,
    LISTS,
    LOAD,
    LOOKUP,
    META,
    PEEK,
    PERF,
    POP,
    PUSH,
    RANDOM,
    REDIRECT,
    REDIRECT_CPU,
    REDIRECT_HASH,
    REDIRECT_SOCKET,
    REDIRECT_TO,
    RING,
    RX_QUEUE,
    STORE,
    TABLES,
    TAIL,
    TIME,
    UPDATE,
    Order,
    Pair,
    frame,
    same,
    written_down,
)
from twins import HERE, WIRE, carry, dump, packed, run, send

from lab.vm.machine import Machine

pytestmark = [
    pytest.mark.usefixtures("hooks"),
    # Which CPU a packet comes in on decides what an LRU map forgets.
    pytest.mark.machine(cpus=1),
    pytest.mark.limit(300),
]

PASSED, REDIRECTED = 2, 4
"""Verdicts."""

#: The bytes of an event, as bpftool shows it.
DATA = re.compile(r'"data":\[([^]]*)\]')


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


def test_maps_keep_the_limits_of_their_twins(pairs: list[Pair]) -> None:
    """The last key and the one past it, flags that nobody knows, lists that are full or empty."""
    every = (0, 1, 2, 3, 4, 8, 1 << 31, (1 << 32) - 1)
    orders: list[Order] = []
    for table in TABLES:
        for key in (0, 7, 8, 1 << 31, (1 << 32) - 1):
            orders += [(LOOKUP + table, key, 0, 0)]
            orders += [(UPDATE + table, key, flags, key + flags) for flags in every]
            orders += [(verb + table, key, 0, 0) for verb in (LOOKUP, DELETE, LOOKUP, DELETE)]
    begin, took = len(orders), {}
    for list_ in LISTS:
        orders += [(verb + list_, 0, 0, 0) for verb in (POP, PEEK)]
        orders += [(PUSH + list_, 0, flags, flags) for flags in every]
        orders += [(POP + list_, 0, 0, 0)] * 3
        # Eight where there is room for six, and two in the place of the oldest.
        orders += [(PUSH + list_, 0, 0, value) for value in range(8)]
        orders += [(PUSH + list_, 0, 2, value) for value in (100, 101)]
        took[list_] = len(orders)
        orders += [(verb + list_, 0, 0, 0) for verb in (PEEK, POP)] * 7
    for pair in pairs:
        found = pair.outcomes(orders)
        same(orders, found)
        assert {status for status, _ in found["ebpf"][:begin]} == {0, -1, -2, -7, -17, -22}
        assert {status for status, _ in found["ebpf"][begin:]} == {0, -1, -7, -22}
        left = [2, 3, 4, 5, 100, 101]
        for list_, values in zip(LISTS, (left, left[::-1]), strict=True):
            twice = [(0, value) for value in values for _ in (PEEK, POP)]
            assert found["ebpf"][took[list_] :][:14] == [*twice, (-1, 0), (-1, 0)]


def test_time_goes_on_as_that_of_its_twin(pairs: list[Pair]) -> None:
    orders: list[Order] = [(TIME, 0, 0, 0)] * 30
    for pair in pairs:
        first, then = pair.outcomes(orders), pair.outcomes(orders)
        times = [
            value
            for found in (first["ebpf"], first["lua"], then["ebpf"], then["lua"])
            for _, value in found
        ]
        assert times == sorted(times)
        assert len(set(times)) == len(times)


def test_random_numbers_are_as_those_of_their_twin(pairs: list[Pair]) -> None:
    orders: list[Order] = [(RANDOM, 0, 0, 0)] * 200
    for pair in pairs:
        for who, found in pair.outcomes(orders).items():
            values = [value for _, value in found]
            assert len(set(values)) > 195, who
            assert max(values) < 1 << 32, who
            # Each of 32 bits is set in about half of them: not one in 10^9 runs fails of it.
            ones = [sum(value >> bit & 1 for value in values) for bit in range(32)]
            assert 50 < min(ones) <= max(ones) < 150, who


@pytest.mark.machine(cpus=2)
def test_cpu_is_that_of_its_twin(pairs: list[Pair]) -> None:
    orders: list[Order] = [(CPU, 0, 0, 0)] * 10
    for pair in pairs:
        for cpu in (0, 1):
            found = pair.outcomes(orders, cpu=cpu)
            same(orders, found)
            assert found["ebpf"] == [(0, cpu)] * len(orders)


#: The wire with more than one queue, and what leaves c0 by one of them.
QUEUES = " numtxqueues 4 numrxqueues 4 "
WIDE = WIRE.replace(" type veth", QUEUES + "type veth").replace("name r0", "name r0" + QUEUES)
STEER = """ip netns exec client sh -c 'cd /sys/class/net/c0/queues
for queue in 0 1 2 3; do echo 0 > tx-$queue/xps_cpus; done; echo 1 > tx-{}/xps_cpus'"""


def test_device_and_queue_are_those_of_their_twin(router: Machine, pairs: list[Pair]) -> None:
    router.succeed("ip link del r0", "ip netns del client", WIDE)
    index = int(router.succeed("cat /sys/class/net/r0/ifindex"))
    orders: list[Order] = [(IFINDEX, 0, 0, 0), (RX_QUEUE, 0, 0, 0)]
    for pair in pairs:
        queues = []
        for queue in (0, 3):
            router.succeed(STEER.format(queue))
            found = pair.outcomes(orders)
            same(orders, found)
            assert found["ebpf"][0] == (0, index)
            queues.append(found["ebpf"][1][1])
        # Generic mode goes by what is left of the sender's number, which kernels count from 1.
        assert queues == [0, 3] if pair.mode == "native" else queues[0] != queues[1]


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
    # Sums of so many bytes away, and so many in their place.
    orders += [
        (CSUMS, draw.getrandbits(32), away | there << 8, draw.getrandbits(64))
        for away in (0, 4, 12, 60)
        for there in (0, 4, 8, 60)
    ]
    for pair in pairs:
        found = pair.outcomes(orders)
        same(orders, found)
        assert {status for status, _ in found["ebpf"]} == {0, -13, -22}


@pytest.mark.parametrize(
    ("what", "name", "last"), [(REDIRECT, "devices", 3), (REDIRECT_HASH, "hashed", 0xFFFFFFFF)]
)
def test_redirect_map_sends_where_its_twin_does(
    pairs: list[Pair], what: int, name: str, last: int
) -> None:
    # Nothing at 0 and 2: the flags' low bits are the action. 9 is out of an array's
    # bounds, 8 and more are flags: 8 sends to all.
    orders = [
        (what, key, flags, key)
        for key in (1, last, 0, 2, 9, 0xFFFFFFFE)
        for flags in (0, 1, 2, 3, 4, 7, 8, 16, 24, 64)
    ]
    frames = packed(frame(number, order) for number, order in enumerate(orders))
    for pair in pairs:
        machine = pair.machine
        index = int(machine.succeed("cat /sys/class/net/r1/ifindex"))
        value = " ".join(str(byte) for byte in index.to_bytes(4, "little"))
        for where in pair.of.values():
            update = f"bpftool map update pinned {where}/t_{name}"
            for key in (1, last):
                words = " ".join(str(byte) for byte in key.to_bytes(4, "little"))
                machine.succeed(f"{update} key {words} value {value}")
        machine.copy_to(frames, "/tmp/frames")
        arrived = {}
        for who in pair.of:
            pair.begin(who)
            arrived[who] = carry(machine)
            pair.end(who)
        assert arrived["lua"] == arrived["ebpf"]
        assert len(arrived["ebpf"]) > 4
        same(orders, pair.outcomes(orders))


# What is redirected to a CPU comes to the stack there, and to r0's listeners with it.
HERE_TOO = "ip netns attach here 1"


@pytest.mark.machine(cpus=2)
def test_redirect_map_sends_to_the_cpus_that_its_twin_does(pairs: list[Pair]) -> None:
    # Nothing at 2, and 9 is out of bounds.
    orders: list[Order] = [
        (REDIRECT_CPU, key, flags, key) for key in (0, 1, 2, 9) for flags in (0, 1, 2, 3, 8)
    ]
    frames = packed(frame(number, order) for number, order in enumerate(orders))
    pairs[0].machine.succeed(HERE_TOO)
    for pair in pairs:
        machine = pair.machine
        for where in pair.of.values():
            update = f"bpftool map update pinned {where}/t_cpus"
            machine.succeed(
                *(f"{update} key {cpu} 0 0 0 value 192 0 0 0" for cpu in (0, 1)),
            )
        machine.copy_to(frames, "/tmp/frames")
        arrived = {}
        for who in pair.of:
            pair.begin(who)
            # Those of one CPU overtake those of the other.
            arrived[who] = sorted(carry(machine, to=("here", "r0")))
            pair.end(who)
        found = pair.outcomes(orders)
        same(orders, found)
        statuses = [status for status, _ in found["ebpf"]]
        assert statuses[:10].count(REDIRECTED) == 8
        assert REDIRECTED not in statuses[10:]
        assert arrived["lua"] == arrived["ebpf"]
        assert len(arrived["ebpf"]) == statuses.count(REDIRECTED) + statuses.count(PASSED)


XSK = """
rm -f /tmp/ready /tmp/stop
python3 /tmp/xsk.py {where}/t_sockets r0 /tmp/ready /tmp/stop > /tmp/received 2>&1 &
echo $! > /tmp/listener
"""
HEARD = "touch /tmp/stop; while [ -d /proc/$(cat /tmp/listener) ]; do sleep 0.1; done"


def test_redirect_map_gives_to_the_sockets_that_its_twin_does(pairs: list[Pair]) -> None:
    # A socket at 1, none at 0; 9 is out of bounds.
    orders: list[Order] = [
        (REDIRECT_SOCKET, key, flags, key) for key in (1, 0, 9) for flags in (0, 1, 2, 3, 8)
    ]
    frames = [frame(number, order) for number, order in enumerate(orders)]
    machine = pairs[0].machine
    for name in ("ring.py", "xsk.py"):
        machine.copy_to(HERE / name, f"/tmp/{name}")
    machine.copy_to(packed(frames), "/tmp/frames")
    for pair in pairs:
        for who, where in pair.of.items():
            machine.succeed(XSK.format(where=where))
            machine.wait_until_succeeds("test -e /tmp/ready")
            pair.begin(who)
            send(machine)
            pair.end(who)
            machine.succeed(HEARD)
            heard = machine.succeed("cat /tmp/received").split()
            assert heard == [one.hex() for one in frames[:4]], (who, pair.mode)
            found = written_down(machine, f"{where}/t_outcomes", len(orders))
            statuses = [status for status, _ in found]
            assert statuses == [REDIRECTED] * 4 + [0] + [0, 1, PASSED, 3, 0] * 2, (who, pair.mode)


def test_redirect_sends_where_its_twin_does(pairs: list[Pair]) -> None:
    machine = pairs[0].machine
    index = int(machine.succeed("cat /sys/class/net/r1/ifindex"))
    orders: list[Order] = [(REDIRECT_TO, to, 0, to) for to in (index, 4711, index, 0x7FFFFFFF)]
    frames = [frame(number, order) for number, order in enumerate(orders)]
    for pair in pairs:
        machine.copy_to(packed(frames), "/tmp/frames")
        for who in pair.of:
            pair.begin(who)
            assert carry(machine) == frames[::2], (who, pair.mode)
            pair.end(who)
        same(orders, pair.outcomes(orders))


# Each end that a search can come to, for both families; and d0, which nothing
# that came in by is sent on from.
ROUTES = """set -e
ip -batch - <<END
link add d0 type dummy
link set d0 up
addr add fd01::2/64 dev r0 nodad
addr add fd02::1/64 dev r1 nodad
neigh add fd02::2 lladdr 02:00:00:00:00:04 dev r1
neigh add 198.51.100.3 lladdr 02:00:00:00:00:05 dev r1
route add blackhole 203.0.113.1
route add unreachable 203.0.113.2
route add prohibit 203.0.113.3
route add 203.0.113.4 via 198.51.100.2 dev r1 mtu lock 600
route add 203.0.113.5 via 198.51.100.3 dev r1
route add 203.0.113.5 via 198.51.100.2 dev r1 table 77
route add 203.0.113.6 via inet6 fd02::2 dev r1 metric 7
route add 203.0.113.7 via 198.51.100.77 dev r1 metric 9
rule add tos 0x10 lookup 77
rule add ipproto udp lookup 77
route add blackhole fd02::b1
route add unreachable fd02::b2
route add prohibit fd02::b3
route add fd02::4 via fd02::2 dev r1 mtu lock 1300
route add fd02::5 via fd02::2 dev r1 metric 7
route add fd02::6 via fd02::77 dev r1 metric 9
addr add fd02::9/64 dev r1 nodad
addr add 198.51.100.9/24 dev r1
route add 203.0.113.8 via 198.51.100.2 dev r1 src 198.51.100.9
route add fd02::8 via fd02::2 dev r1 src fd02::9
route add 203.0.113.8 via 198.51.100.3 dev r1 table 78
route add fd02::8 via fd02::3 dev r1 table 78
neigh add fd02::3 lladdr 02:00:00:00:00:06 dev r1
rule add fwmark 5 lookup 78
END
ip -6 rule add tos 0x10 lookup 78
ip -6 rule add fwmark 5 lookup 78
sysctl -qw net.ipv6.conf.all.forwarding=1 net.ipv4.conf.d0.forwarding=0
sysctl -qw net.ipv6.conf.d0.forwarding=0
cat /sys/class/net/d0/ifindex
"""

# To a neighbour, to none, to the machine itself, to nowhere, and the above.
ENDS_V4 = (
    "198.51.100.2",
    "198.51.100.77",
    "198.51.100.1",
    "192.88.99.1",
    *(f"203.0.113.{number}" for number in range(1, 9)),
)
ENDS_V6 = (2, 0x77, 1, 0xB1, 0xB2, 0xB3, 4, 5, 6, 8)

TOS, UDP, TABLE, FWMARK = 0x10, 17, 78, 5

DIRECT, TBID, PREFERRED, MARKED = 1, 8, 16, 32
"""Of BPF_FIB_LOOKUP_*: DIRECT, TBID, SRC, MARK."""


def test_routes_are_those_of_their_twin(pairs: list[Pair]) -> None:
    machine = pairs[0].machine
    other = int(machine.succeed(ROUTES))
    # In the order's value: family, tos, protocol, length, device.
    variants = (0, TOS << 8, UDP << 16, 700 << 24, 1600 << 24, other << 40, 250 << 40)
    orders: list[Order] = [
        (FIB, int(ipaddress.IPv4Address(to)), flags, variant)
        for to in ENDS_V4
        for variant in variants
        for flags in range(5)
    ]
    fourth = len(orders)
    orders += [
        (FIB, to, flags, 1 | variant)
        for to in ENDS_V6
        for variant in (0, TOS << 8, 1400 << 24, 1600 << 24, other << 40)
        for flags in range(5)
    ]
    # Of a table, a mark, and what the route wants as source; one at a time and together.
    fields = ((DIRECT | TBID, TABLE << 48), (MARKED, FWMARK << 56), (PREFERRED, 0))
    fields += ((DIRECT | TBID | PREFERRED, TABLE << 48), (MARKED | PREFERRED, FWMARK << 56))
    orders += [
        (FIB, to, flags, family | variant)
        for family, to in ((0, int(ipaddress.IPv4Address("203.0.113.8"))), (1, 8))
        for flags, variant in fields
    ]
    for pair in pairs:
        found = pair.outcomes(orders)
        same(orders, found)
        # Found; blackhole, unreachable, prohibit; not forwarded, disabled; no
        # neighbour; too long. No device, of IPv4 only.
        for part in (found["ebpf"][:fourth], found["ebpf"][fourth:]):
            assert {status for status, _ in part} >= {0, 1, 2, 3, 4, 5, 7, 8}
        assert -19 in {status for status, _ in found["ebpf"]}
        values = {status: {v for s, v in found["ebpf"] if s == status} for status in (0, 7, 8)}
        # With and without the neighbour; to none, directly and by a gateway; MTUs.
        assert len(values[0]) >= 8
        assert len(values[7]) >= 4 and 0 not in values[7]
        assert values[8] == {600, 1300, 1500}


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
