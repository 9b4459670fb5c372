# SPDX-License-Identifier: GPL-2.0-only
"""Networks of pristine machines: wires, a router, a LAN, and wires gone bad."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from lab.errors import UserError
from lab.net.capture import Capture
from lab.net.network import Network
from lab.vm.errors import LineRefused
from lab.vm.machine import Machine

#: Packets of a measured ping; with 400 the error of a 20 % share is 2 % (one sigma).
MANY = 400
#: Bytes of an Ethernet header.
ETHERNET = 14
#: Milliseconds that frames take longer, each way, by slow.yaml.
SLOW = 400.0
#: Sigma of what lies evenly between -1 and 1.
EVEN = 3**-0.5


@dataclass(frozen=True)
class Ping:
    """What ping saw."""

    sent: int
    received: int
    duplicates: int
    average: float  # ms
    fastest: float  # ms
    spread: float  # ms, one sigma


#: Answers that the kernel had, of either family: the second word of each line.
ANSWERS = "nstat -asz IcmpInEchoReps Icmp6InEchoReplies"

#: Seconds that an answer may take on a host that is busy with something else.
LATE = 2


def answers(text: str) -> int:
    """The sum of what `ANSWERS` printed."""
    return sum(int(line.split()[1]) for line in text.splitlines() if "InEchoRep" in line)


def ping(machine: Machine, address: str, *, count: int = 20, options: str = "") -> Ping:
    """Ping, 5 ms apart.

    Once ping has had an answer, it waits for the last no longer than for two as
    slow as the slowest: a few milliseconds, which any host may sleep through.
    What comes after that is counted by the kernel.
    """
    before, said, after = machine.succeed(
        f"{ANSWERS}; echo =; ping -n -c {count} -i 0.005 -W {LATE} {options} {address}; echo =; "
        f"{ANSWERS}",
        timeout=60,
    ).split("=\n")
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    times = re.search(r"= ([\d.]+)/([\d.]+)/[\d.]+/([\d.]+) ms", said)
    twice = re.search(r"\+(\d+) duplicates", said)
    assert counts, said
    sent, received = int(counts[1]), int(counts[2])
    duplicates = int(twice[1]) if twice else 0
    if 0 < received < sent:
        wanted = answers(before) + sent + duplicates
        deadline = time.monotonic() + LATE
        while answers(after) < wanted and time.monotonic() < deadline:
            after = machine.succeed(ANSWERS)
        received = min(sent, answers(after) - answers(before) - duplicates)
    return Ping(
        sent=sent,
        received=received,
        duplicates=duplicates,
        fastest=float(times[1]) if times else 0.0,
        average=float(times[2]) if times else 0.0,
        spread=float(times[3]) if times else 0.0,
    )


def flipped(one: bytes, other: bytes) -> int:
    """Bits in which two frames differ."""
    return sum((a ^ b).bit_count() for a, b in zip(one, other, strict=True))


@pytest.mark.topology("pair")
@pytest.mark.parametrize("version", [4, 6])
def test_pair_talks(net: Network, version: int) -> None:
    assert ping(net["left"], net.address("right", version=version)).received == 20


@pytest.mark.topology("router")
@pytest.mark.parametrize("version", [4, 6])
def test_router_forwards(net: Network, version: int) -> None:
    seen = ping(net["client"], net.address("server", version=version), options="-t 2")
    assert seen.received == 20
    # Through a router it is two hops: with a life of one, nothing arrives.
    seen = ping(net["client"], net.address("server", version=version), options="-t 1")
    assert seen.received == 0


def test_what_a_kernel_refuses(start: Callable[..., Machine]) -> None:
    lines = ["up eth0", "address eth0 10.0.0.1/24", "route 0.0.0.0/0 10.1.0.1"]
    with pytest.raises(LineRefused, match="line 3 Nexthop has invalid gateway"):
        start("a").configure(lines)


@pytest.mark.topology("lan")
def test_everybody_on_a_lan_hears_everybody(net: Network) -> None:
    for one in net.nodes():
        for other in net.topology.nodes:
            assert ping(one, net.address(other), count=2).received == 2


@pytest.mark.topology("pair")
def test_capture_holds_exactly_what_was_sent(net: Network) -> None:
    from scapy.layers.inet import ICMP, IP

    ping(net["left"], net.address("right"), count=1)  # neighbours know each other
    with net.capture("right") as capture:
        ping(net["left"], net.address("right"), count=7, options="-s 321")
    echoes = [packet for packet in capture.packets() if ICMP in packet]
    assert {packet[IP].len for packet in echoes} == {20 + 8 + 321}
    # On a busy host the next request may be there before an answer is given.
    asked, answered = ([p[ICMP] for p in echoes if p[ICMP].type == kind] for kind in (8, 0))
    assert [echo.seq for echo in asked] == [echo.seq for echo in answered] == list(range(1, 8))
    assert [bytes(e.payload) for e in asked] == [bytes(e.payload) for e in answered]


@pytest.mark.topology("pair")
def test_capture_holds_every_byte(net: Network) -> None:
    from scapy.layers.inet import UDP

    left, right = net["left"], net.address("right")
    ping(left, right, count=1)
    sent = [os.urandom(size) for size in (1, 18, 321, 1472)]
    with net.capture("right") as capture:
        for data in sent:
            left.copy_to(data, "/data")
            left.succeed(f"socat -u -b 1472 FILE:/data UDP4:{right}:9")
    arrived = [packet[UDP] for packet in capture.packets() if UDP in packet]
    # Where nobody listens the answers quote what they answer, but in an ICMP message.
    assert [bytes(datagram.payload)[: datagram.len - 8] for datagram in arrived] == sent


@pytest.mark.topology("pair")
def test_capture_of_a_machine_that_ended_can_be_read(net: Network) -> None:
    from scapy.layers.inet import ICMP

    with net.capture("right") as capture:
        assert ping(net["left"], net.address("right"), count=3).received == 3
        net["right"].stop()
    assert sorted(p[ICMP].type for p in capture.packets() if ICMP in p) == [0, 0, 0, 8, 8, 8]


@pytest.mark.topology("pair")
def test_flap(net: Network) -> None:
    left, right = net.nodes("left", "right")
    with net.link("wire").down():
        for node in (left, right):
            node.wait_until_succeeds("test $(cat /sys/class/net/eth0/carrier) = 0")
        assert ping(left, net.address("right"), count=3).received == 0
    left.wait_until_succeeds("test $(cat /sys/class/net/eth0/carrier) = 1")
    left.wait_until_succeeds(f"ping -c 1 -W 1 {net.address('right')}")


def test_plain_wire_cannot_be_impaired(net: Network) -> None:
    with pytest.raises(UserError, match="bridge: true"):
        net.link("wire").impair(loss="1%")


def tolerance(net: Network) -> float:
    """Milliseconds that three machines may take themselves: 57 seen under KASAN, host busy."""
    return 40 * net["left"].spec.patience


def ways(captures: Sequence[Capture]) -> list[list[float]]:
    """Fastest ways of the echoes of each ping between two cards: [there, back], in ms.

    The two QEMUs count from times of their own, so that only the difference
    between two pings of the same captures says something.
    """
    from scapy.layers.inet import ICMP

    here, there = (
        {
            (p[ICMP].id, p[ICMP].type, p[ICMP].seq): float(p.time) * 1000
            for p in capture.packets()
            if ICMP in p
        }
        for capture in captures
    )
    fastest: dict[int, list[float]] = {}
    for key in here.keys() & there.keys():
        back = key[1] == 0
        way = here[key] - there[key] if back else there[key] - here[key]
        mine = fastest.setdefault(key[0], [math.inf, math.inf])
        mine[back] = min(mine[back], way)
    # In the order in which they began: `here` holds what was sent first to last.
    return [fastest[number] for number in dict.fromkeys(key[0] for key in here)]


@pytest.mark.topology("slow.yaml")
def test_impaired_as_its_topology_says(net: Network) -> None:
    left, right = net["left"], net.address("right")
    ping(left, right)  # neighbours know each other
    assert ping(left, right, count=5, options="-M do -s 573").received == 0
    slack = tolerance(net)
    with net.capture("left") as here, net.capture("right") as there:
        both = ping(left, right, options="-M do -s 572")
        net.link("wire").impair(toward="right")
        back = ping(left, right, options="-M do -s 572")
    assert both.received == back.received == 20
    assert 2 * SLOW <= both.fastest < 2 * SLOW + slack
    assert SLOW <= back.fastest < SLOW + slack
    # Both directions had it, and the one that was mended has it no more.
    bad, mended = ways([here, there])
    assert SLOW - slack < bad[0] - mended[0] < SLOW + slack
    assert -slack < bad[1] - mended[1] < slack


@pytest.mark.topology("pair", bridge=True)
class TestImpairment:
    """Each fault, measured from outside of the node that makes it."""

    def test_none(self, net: Network) -> None:
        seen = ping(net["left"], net.address("right"), count=100)
        assert (seen.received, seen.duplicates) == (100, 0)

    def test_delay_is_added_in_both_directions(self, net: Network) -> None:
        net.link("wire").impair(delay="100ms")
        seen = ping(net["left"], net.address("right"))
        assert seen.received == 20
        assert 200 <= seen.fastest < 200 + tolerance(net)

    def test_delay_in_one_direction(self, net: Network) -> None:
        left, right = net["left"], net.address("right")
        ping(left, right)  # neighbours know each other
        delay, slack = 2.5 * tolerance(net), tolerance(net)
        with net.capture("left") as here, net.capture("right") as there:
            ping(left, right)
            net.link("wire").impair(delay=f"{delay:.0f}ms", toward="right")
            assert ping(left, right).received == 20
        good, bad = ways([here, there])
        assert delay - slack < bad[0] - good[0] < delay + slack
        assert -slack < bad[1] - good[1] < slack

    def test_jitter_varies_the_delay(self, net: Network) -> None:
        left, right = net["left"], net.address("right")
        ping(left, right, count=3)
        slack = tolerance(net)
        delay, jitter = 5 * slack, 4 * slack
        net.link("wire").impair(delay=f"{delay:.0f}ms", jitter=f"{jitter:.0f}ms", toward="right")
        seen = ping(left, right, count=100)
        assert seen.received == 100
        # Machines only ever add to the delay. That none of a hundred is a
        # quarter of the jitter early has odds of 1 : 10^12 if they add all they may.
        assert delay - jitter <= seen.fastest < delay - jitter / 4
        assert abs(seen.average - delay) < slack + 5 * EVEN * jitter / 10
        # Five sigma of a hundred evenly spread ones are 22 %.
        assert 0.75 * EVEN * jitter < seen.spread < 1.25 * EVEN * jitter + slack

    def test_loss(self, net: Network) -> None:
        # Neighbours that lose each other's questions thrice give up, and lose every ping.
        ping(net["left"], net.address("right"), count=3)
        net.link("wire").impair(loss="20%", toward="right")
        seen = ping(net["left"], net.address("right"), count=MANY)
        # Five sigma either way.
        assert 0.70 * MANY < seen.received < 0.90 * MANY

    def test_duplication(self, net: Network) -> None:
        net.link("wire").impair(duplicate="20%", toward="left")
        seen = ping(net["left"], net.address("right"), count=MANY)
        assert 0.10 * MANY < seen.duplicates < 0.30 * MANY

    def test_corruption_flips_one_bit(self, net: Network) -> None:
        left, right = net.nodes("left", "right")
        ping(left, net.address("right"), count=3)
        own = right.succeed("cat /sys/class/net/eth0/address").strip()
        net.link("wire").impair(corrupt="20%", toward="right")
        with net.capture("left") as here, net.capture("right") as there:
            seen = ping(left, net.address("right"), count=MANY, options="-s 321")
        # By their size: what else says who is who may be what was corrupted.
        size = ETHERNET + 20 + 8 + 321
        mine = left.succeed("cat /sys/class/net/eth0/address").strip()
        sent = [bytes(p) for p in here.packets() if len(p) == size and p.src == mine]
        came = [bytes(p) for p in there.packets() if len(p) == size and p.src != own]
        assert len(sent) == len(came) == MANY
        wrong = [flipped(*pair) for pair in zip(sent, came, strict=True)]
        damaged = wrong.count(1)
        assert set(wrong) == {0, 1}
        # Five sigma either way.
        assert 0.10 * MANY < damaged < 0.30 * MANY
        # Checksums see most of it; a bit of an Ethernet address need not matter.
        assert 0.8 * damaged < MANY - seen.received <= damaged

    def test_reordering(self, net: Network) -> None:
        from scapy.layers.inet import ICMP

        ping(net["left"], net.address("right"), count=3)
        # Longer than a busy host lets a machine wait between two pings.
        delay = f"{5 * tolerance(net):.0f}ms"
        net.link("wire").impair(delay=delay, reorder="25%", toward="right")
        with net.capture("right") as capture:
            ping(net["left"], net.address("right"), count=MANY)
        order = [p[ICMP].seq for p in capture.packets() if ICMP in p and p[ICMP].type == 8]
        assert sorted(order) == list(range(1, MANY + 1))
        ahead = [seq for n, seq in enumerate(order) if any(late < seq for late in order[n:])]
        # Five sigma either way.
        assert 0.14 * MANY < len(ahead) < 0.36 * MANY

    def test_rate(self, net: Network) -> None:
        left, right = net.nodes("left", "right")
        net.link("wire").impair(rate="2mbit", toward="right")
        right.succeed("iperf3 -s -1 -D")
        right.wait_for_open_port(5201)
        said = left.succeed(f"iperf3 -c {net.address('right')} -t 5 --json", timeout=60)
        arrived = json.loads(said)["end"]["sum_received"]["bits_per_second"]
        # Headers are part of the rate, and a stream takes a moment to fill it.
        assert 1.4e6 < arrived < 2.0e6

    def test_mtu(self, net: Network) -> None:
        net.link("wire").impair(mtu=600)
        whole = "-M do"
        assert ping(net["left"], net.address("right"), options=f"{whole} -s 572").received == 20
        assert ping(net["left"], net.address("right"), count=5,
                    options=f"{whole} -s 573").received == 0  # fmt: skip

    def test_mended(self, net: Network) -> None:
        net.link("wire").impair(loss="100%", mtu=100)
        assert ping(net["left"], net.address("right"), count=3).received == 0
        net.link("wire").impair()
        # The nodes have given each other up meanwhile, and find each other first.
        net["left"].wait_until_succeeds(f"ping -c 1 -W 1 {net.address('right')}")
        assert ping(net["left"], net.address("right")).received == 20
