# SPDX-License-Identifier: GPL-2.0-only
"""One rule set by nft, by iptables and by Lua: the same packets pass, byte for byte."""

from __future__ import annotations

import io
import random
import socket
from collections.abc import Iterator

import pytest
from frames import bring_frames, framed, link_address
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption, fragment
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.packet import Packet, Raw
from scapy.utils import RawPcapReader
from servers import serve
from wiring import LAID, ROUTED, run, wire

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

OURS, OTHERS = ("10.1.0.2", "fd01::2"), ("10.1.0.7", "fd01::7")
"""Sources: the one that a rule names, and another, in both families."""

THERE = ("10.2.0.2", "fd02::2")

NFT = """
add table inet t
add chain inet t f { type filter hook forward priority 0; }
add rule inet t f udp dport 53 drop
add rule inet t f tcp dport 443 tcp flags & syn == syn drop
add rule inet t f ip saddr 10.1.0.2 udp sport 20000-40000 drop
add rule inet t f ip6 saddr fd01::2 udp sport 20000-40000 drop
"""

IPTABLES = """*filter
-A FORWARD -p udp --dport 53 -j DROP
-A FORWARD -p tcp --dport 443 --tcp-flags SYN SYN -j DROP
-A FORWARD -s {source} -p udp -m multiport --sports 20000:40000 -j DROP
COMMIT
"""

LUA = """
local netfilter, nf = require("netfilter"), require("linux.nf")
local packet = require("packet")
local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
local OURS <const> = {
    [4] = "\\10\\1\\0\\2",
    [6] = "\\xfd\\1" .. ("\\0"):rep(13) .. "\\2",
}
local function ours(view)
    local version = view:getuint8(0) >> 4
    local source = version == 4 and view:getstring(12, 4) or view:getstring(8, 16)
    return source == OURS[version]
end
netfilter.register{
    hook = function(skb)
        local view = skb:data("net")
        local _, from, to = packet.udp(view)
        if from then
            return (to == 53 or from >= 20000 and from <= 40000 and ours(view)) and DROP or ACCEPT
        end
        local start, _, _, to = packet.tcp(view)
        if to == 443 and view:getuint8(start + 13) & 2 ~= 0 then return DROP end
        return ACCEPT
    end,
    pf = nf.proto.INET, hooknum = nf.inet.FORWARD,
}
"""


def drawn(count: int, seed: int) -> list[Packet]:
    """Good packets of both families, some of which the rules above drop."""
    draw = random.Random(seed)

    def head() -> Packet:
        source, family = draw.choice((OURS, OTHERS)), draw.randrange(2)
        if family == 0:
            options = draw.choice(([], [], [], [IPOption(b"\x01\x01\x01\x00")]))
            return IP(src=source[0], dst=THERE[0], id=draw.getrandbits(16), options=options)
        six = IPv6(src=source[1], dst=THERE[1], fl=draw.getrandbits(20))
        extensions = ((), (), (IPv6ExtHdrHopByHop(),), (IPv6ExtHdrHopByHop(), IPv6ExtHdrDestOpt()))
        for extension in draw.choice(extensions):
            six /= extension
        return six

    def body(version: int) -> Packet:
        ports = {"sport": draw.randint(1024, 65535), "dport": draw.choice((53, 443, 80, 9999))}
        echo = ICMP() if version == 4 else ICMPv6EchoRequest()
        tcp = TCP(**ports, flags=draw.choice(("S", "SA", "A", "PA", "FA")))
        return draw.choice((UDP(**ports), UDP(**ports), tcp, tcp, echo))

    packets: list[Packet] = []
    while len(packets) < count:
        packet = head()
        load = Raw(draw.randbytes(draw.randrange(1000)))
        packet = packet / body(packet.version) / load
        packets += fragmented(packet, draw) if draw.random() < 0.1 else [packet]
    return packets[:count]


def fragmented(packet: Packet, draw: random.Random) -> list[Packet]:
    """In pieces, as they come when nobody has put them together."""
    if packet.version == 4:
        return list(fragment(packet, fragsize=200))
    if packet.haslayer(IPv6ExtHdrHopByHop):
        return [packet]
    head = packet.copy()
    head.remove_payload()
    number = draw.getrandbits(32)
    return list(fragment6(head / IPv6ExtHdrFragment(id=number) / packet.payload, 280))


def captured(machine: Machine) -> list[bytes]:
    """What real programs send, in both families, as it leaves their card: frames."""
    serve(machine, namespace="b")
    machine.succeed(
        # As on a wire: no super packets, and sums filled in.
        "ip netns exec a ethtool -K va tx off gso off",
        "ip netns exec a tcpdump -i va -Q out -U -w /tmp/capture >/tmp/said 2>&1 & "
        "echo $! >/tmp/tcpdump",
    )
    machine.wait_until_succeeds("grep listening /tmp/said")
    for address in THERE:
        url = f"https://www.fine.example/ --resolve www.fine.example:443:{_literal(address)}"
        machine.succeed(
            f"ip netns exec a drill @{address} www.fine.example",
            f"ip netns exec a curl -sk -m 30 -o /dev/null {url}",
            f"ip netns exec a iperf3 -c {address} -n 100K",
            f"ip netns exec a ping -q -c 2 -i 0.1 -s 3000 {address}",
        )
    machine.succeed(
        "kill $(cat /tmp/tcpdump)", "while kill -0 $(cat /tmp/tcpdump) 2>&-; do sleep 0.05; done"
    )
    pcap = io.BytesIO(machine.copy_from("/tmp/capture"))
    return [frame for frame, _ in RawPcapReader(pcap) if _for_there(frame)]


def _literal(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _for_there(frame: bytes) -> bool:
    family, address = {
        b"\x08\x00": (socket.AF_INET, frame[30:34]),
        b"\x86\xdd": (socket.AF_INET6, frame[38:54]),
    }.get(frame[12:14], (0, b""))
    return bool(address) and socket.inet_ntop(family, address) in THERE


def silence(machine: Machine) -> None:
    """What arrives is seen by captures and nobody else; the router has no need to ask for it."""
    card = machine.succeed("ip netns exec b cat /sys/class/net/vb/address").strip()
    for address in THERE:
        machine.succeed(f"ip neigh replace {address} lladdr {card} dev rb nud permanent")
    machine.succeed(
        "ip netns exec b nft 'add table netdev t; add chain netdev t i "
        "{ type filter hook ingress device vb priority 0; policy drop; }'",
        # Those that wait for an answer of a test before this.
        "sleep 0.2",
    )


def ways(kernel: KernelInfo) -> Iterator[tuple[str, str, str]]:
    """Of the rules: whose, what sets them, what takes them away."""
    yield "nft", "nft -f /tmp/nft", "nft delete table inet t"
    for kind in ("nft", *(["legacy"] if kernel.has("IP_NF_FILTER") else [])):
        yield (
            f"iptables-{kind}",
            f"iptables-{kind}-restore </tmp/four; ip6tables-{kind}-restore </tmp/six",
            f"iptables-{kind} -F FORWARD; ip6tables-{kind} -F FORWARD",
        )


@pytest.mark.limit(300)
def test_four_filters_pass_the_same_packets(machine: Machine, kernel: KernelInfo) -> None:
    wire(machine, ROUTED)
    recorded = captured(machine)
    packets = [bytes(packet) for packet in drawn(500, seed=5)]
    assert len(recorded) > 100
    frames = [*framed(packets, link_address(machine, "ra")), *recorded]
    bring_frames(machine, frames)
    machine.copy_to(NFT.encode(), "/tmp/nft")
    for name, source in zip(("four", "six"), OURS, strict=True):
        machine.copy_to(IPTABLES.format(source=source).encode(), f"/tmp/{name}")
    silence(machine)

    def passed(begin: str = "true", end: str = "true") -> list[str]:
        """How many packets pass, and a digest of all of them."""
        machine.succeed(begin)
        sources = ",".join((*OURS, *OTHERS))
        out = machine.succeed(f"python3 /tmp/replay.py /tmp/frames a va b vb {sources}").split()
        machine.succeed(end)
        return out[1:]

    every = passed()
    assert int(every[0]) == len(frames)
    run(machine, LUA)
    by_lua = passed(end="lunatik stop hook")
    assert len(frames) // 4 < int(by_lua[0]) < len(frames) - len(packets) // 10
    for name, begin, end in ways(kernel):
        assert passed(begin, end) == by_lua, name
