# SPDX-License-Identifier: GPL-2.0-only
"""Packets as a test wants them: valid ones of many kinds, and mutations of them.

Everything is drawn from a seed, so that a failure can be had again.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from scapy.layers.dns import DNS, DNSQR
from scapy.layers.inet import IP, TCP, UDP, IPOption, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.packet import Packet, Raw

from lab.vm.machine import Machine

SOURCE = b"\x02\x00\x00\x00\x00\x99"
"""The link address by which a hook knows them."""

PORTS = (53, 443, 9999, 80)


def valid(seed: int) -> list[Packet]:
    """A few of each kind, the ports drawn."""
    draw = random.Random(seed)

    def ports() -> dict[str, int]:
        return {"sport": draw.randint(1024, 65535), "dport": draw.choice(PORTS)}

    four = {"src": "10.1.0.2", "dst": "10.2.0.2"}
    six = {"src": "fd01::2", "dst": "fd02::2"}
    query = DNS(rd=1, qd=DNSQR(qname="www.blocked.example"))
    load = Raw(bytes(range(64)))
    return [
        IP(**four) / UDP(**ports()) / query,
        IP(**four) / UDP(**ports()) / load,
        IP(**four, options=[IPOption(b"\x94\x04\x00\x00")]) / UDP(**ports()) / load,
        IP(**four) / TCP(**ports(), flags="S", options=[("MSS", 1460)]),
        IP(**four) / TCP(**ports(), flags="PA") / load,
        *fragment(IP(**four, id=7) / UDP(**ports()) / Raw(bytes(200)), fragsize=104),
        IPv6(**six) / UDP(**ports()) / query,
        IPv6(**six) / TCP(**ports(), flags="PA") / load,
        IPv6(**six) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / UDP(**ports()) / load,
        IPv6(**six) / IPv6ExtHdrFragment(id=3, offset=0, m=1) / UDP(**ports()) / load,
        IPv6(**six) / IPv6ExtHdrFragment(id=3, offset=9, m=0) / load,
    ]


def mutations(count: int, *, seed: int) -> Iterator[bytes]:
    """Packets of IP that somebody has been at: bytes changed, cut, doubled."""
    draw = random.Random(seed)
    while True:
        for packet in valid(draw.randrange(1 << 30)):
            if count == 0:
                return
            count -= 1
            data = bytearray(bytes(packet))
            # Most faults where the headers are.
            for _ in range(draw.choice((0, 1, 1, 2, 8))):
                data[draw.randrange(min(len(data), 80))] = draw.randrange(256)
            if draw.random() < 0.3:
                del data[draw.randrange(1, len(data)) :]
            if draw.random() < 0.1:
                cut = draw.randrange(len(data))
                data[cut:cut] = data[:cut]
            yield bytes(data[:1400])


def destination_port(data: bytes) -> tuple[int, int] | None:
    """What a hook should find: (protocol, destination port) of TCP and UDP."""
    if len(data) < 20:
        return None
    found = _four(data) if data[0] >> 4 == 4 else _six(data) if data[0] >> 4 == 6 else None
    if found is None:
        return None
    protocol, rest = found
    least = {6: 20, 17: 8}.get(protocol)
    if least is None or len(rest) < least:
        return None
    if protocol == 6 and (rest[12] >> 4) * 4 > len(rest):
        return None
    return protocol, int.from_bytes(rest[2:4], "big")


def _four(data: bytes) -> tuple[int, bytes] | None:
    size = (data[0] & 15) * 4
    offset = int.from_bytes(data[6:8], "big") & 0x1FFF
    if size < 20 or size > len(data) or offset:
        return None
    return data[9], data[size:]


def _six(data: bytes) -> tuple[int, bytes] | None:
    if len(data) < 40:
        return None
    kind, rest = data[6], data[40:]
    while kind in (0, 43, 44, 60):
        if len(rest) < 8:
            return None
        size = 8 if kind == 44 else 8 + rest[1] * 8
        if kind == 44 and int.from_bytes(rest[2:4], "big") >> 3:
            return None
        if size > len(rest):
            return None
        kind, rest = rest[0], rest[size:]
    return kind, rest


def link_address(machine: Machine, device: str) -> bytes:
    """Of a device of the machine's."""
    return bytes.fromhex(
        machine.succeed(f"cat /sys/class/net/{device}/address").strip().replace(":", "")
    )


def framed(packets: Iterable[bytes], target: bytes) -> Iterator[bytes]:
    """Packets of IP as frames from SOURCE."""
    for data in packets:
        kind = b"\x86\xdd" if data[:1] and data[0] >> 4 == 6 else b"\x08\x00"
        yield target + SOURCE + kind + data


def bring_frames(machine: Machine, frames: Iterable[bytes]) -> None:
    """Have frames in /tmp/frames, each behind its length, and /tmp/replay.py to send them."""
    machine.copy_to(Path(__file__).with_name("replay.py"), "/tmp/replay.py")
    content = b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames)
    machine.copy_to(content, "/tmp/frames")


def bring(machine: Machine, packets: Iterable[bytes]) -> None:
    """Have packets to the router in /tmp/frames, and /tmp/replay.py to send them."""
    bring_frames(machine, framed(packets, link_address(machine, "ra")))


def replay(machine: Machine, *packets: Packet) -> None:
    """Send packets from a to the router, as they are."""
    bring(machine, [bytes(packet) for packet in packets])
    machine.succeed("python3 /tmp/replay.py /tmp/frames a va")
