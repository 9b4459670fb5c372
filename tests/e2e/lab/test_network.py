# SPDX-License-Identifier: GPL-2.0-only
"""Networks of pristine machines: wires, a router, a LAN, and wires gone bad."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest

from lab.errors import UserError
from lab.net.network import Network
from lab.vm.machine import Machine

#: Packets of a measured ping; with 400 the error of a 20 % share is 2 % (one sigma).
MANY = 400


@dataclass(frozen=True)
class Ping:
    """What ping saw."""

    sent: int
    received: int
    duplicates: int
    average: float  # ms
    fastest: float  # ms


def ping(machine: Machine, address: str, *, count: int = 20, options: str = "") -> Ping:
    """Ping, 5 ms apart."""
    said = machine.execute(
        f"ping -n -c {count} -i 0.005 -W 2 {options} {address}", timeout=60
    ).stdout
    counts = re.search(r"(\d+) packets transmitted, (\d+) received", said)
    times = re.search(r"= ([\d.]+)/([\d.]+)/", said)
    twice = re.search(r"\+(\d+) duplicates", said)
    assert counts, said
    return Ping(
        sent=int(counts[1]),
        received=int(counts[2]),
        duplicates=int(twice[1]) if twice else 0,
        fastest=float(times[1]) if times else 0.0,
        average=float(times[2]) if times else 0.0,
    )


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
    assert [packet[ICMP].type for packet in echoes] == [8, 0] * 7
    assert {packet[IP].len for packet in echoes} == {20 + 8 + 321}
    assert [packet[ICMP].seq for packet in echoes] == [n for n in range(1, 8) for _ in range(2)]


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
        net.link("wire").impair(delay="100ms", toward="right")
        fastest = ping(net["left"], net.address("right")).fastest
        assert 100 <= fastest < 100 + tolerance(net)

    def test_loss(self, net: Network) -> None:
        net.link("wire").impair(loss="20%", toward="right")
        seen = ping(net["left"], net.address("right"), count=MANY)
        # Five sigma either way.
        assert 0.70 * MANY < seen.received < 0.90 * MANY

    def test_duplication(self, net: Network) -> None:
        net.link("wire").impair(duplicate="20%", toward="left")
        seen = ping(net["left"], net.address("right"), count=MANY)
        assert 0.10 * MANY < seen.duplicates < 0.30 * MANY

    def test_corruption_is_seen_by_checksums(self, net: Network) -> None:
        net.link("wire").impair(corrupt="20%", toward="right")
        seen = ping(net["left"], net.address("right"), count=MANY)
        # A flipped bit in the Ethernet header or padding does not always show.
        assert 0.70 * MANY < seen.received < 0.95 * MANY

    def test_reordering(self, net: Network) -> None:
        from scapy.layers.inet import ICMP

        net.link("wire").impair(delay="50ms", reorder="25%", toward="right")
        with net.capture("right") as capture:
            ping(net["left"], net.address("right"), count=100)
        order = [p[ICMP].seq for p in capture.packets() if ICMP in p and p[ICMP].type == 8]
        assert sorted(order) == list(range(1, 101))
        assert order != sorted(order)

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
