# SPDX-License-Identifier: GPL-2.0-only
"""Traffic for filters: connections, floods, TLS, and what an enemy makes of it.

Everything is drawn from a seed, so that a failure can be had again.
"""

from __future__ import annotations

import contextlib
import os
import random
import ssl
from collections.abc import Iterator

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from twins import MARK, ROUTER

SERVER = "198.51.100.2"
BAD = ("192.0.2.66", "192.0.2.67", "192.0.2.100")
"""Sources that are to be dropped."""

NAMES = ("blocked.example", "www.blocked.example", "fine.example", "blocked.example.net")


def asked(variable: str, default: int) -> int:
    """How many: the default, or what the environment asks for."""
    return int(os.environ.get(variable, default))


def hello(name: str) -> bytes:
    """The first bytes that a real client sends to a server of this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Since OpenSSL 3.5 a share of ML-KEM makes that of TLS 1.3 larger than a frame.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    out = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return out.read()


class Traffic:
    """Good packets of IPv4 for the server, as frames for r0."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.hellos = {name: hello(name) for name in NAMES}

    def packets(self, count: int) -> Iterator[Packet]:
        """One after the other, of every kind; no two can be merged into one."""
        kinds = (self._datagram, self._syn, self._segment, self._tls, self._echo, self._fragments)
        made = 0
        while True:
            for packet in self.draw.choices(kinds, weights=(4, 6, 4, 4, 1, 1))[0]():
                if made == count:
                    return
                made += 1
                yield packet

    def frames(self, count: int) -> list[bytes]:
        ether = Ether(src=MARK, dst=ROUTER)
        return [bytes(ether / packet) for packet in self.packets(count)]

    def _head(self) -> IP:
        # A few sources send most of it.
        last = self.draw.choice((66, 67, 100, 7, 7, 8, self.draw.randrange(10, 250)))
        return IP(src=f"192.0.2.{last}", dst=SERVER, id=self.draw.getrandbits(16), ttl=64)

    def _tcp(self, port: int, flags: str) -> Packet:
        return self._head() / TCP(
            sport=self.draw.randrange(1024, 65536),
            dport=port,
            flags=flags,
            seq=self.draw.getrandbits(32),
            options=[("MSS", 1460)] if "S" in flags else [],
        )

    def _load(self, least: int = 0) -> Raw:
        return Raw(self.draw.randbytes(self.draw.randrange(least, 900)))

    def _datagram(self) -> list[Packet]:
        udp = UDP(sport=self.draw.randrange(1024, 65536), dport=self.draw.choice((53, 443, 9999)))
        return [self._head() / udp / self._load()]

    def _syn(self) -> list[Packet]:
        flags = self.draw.choice(("S", "S", "S", "SA", "SEC", "R", "FA"))
        return [self._tcp(self.draw.choice((22, 80, 80, 443)), flags)]

    def _segment(self) -> list[Packet]:
        # A name in what is no ClientHello blocks nothing.
        text = self.draw.choice((b"", b"GET / HTTP/1.1\r\nHost: blocked.example\r\n\r\n"))
        load = Raw(text) if text else self._load(1)
        return [self._tcp(self.draw.choice((80, 443)), "PA") / load]

    def _tls(self) -> list[Packet]:
        port = self.draw.choice((443, 443, 443, 8443))
        return [self._tcp(port, "PA") / Raw(self.hellos[self.draw.choice(NAMES)])]

    def _echo(self) -> list[Packet]:
        return [self._head() / ICMP(id=self.draw.getrandbits(16)) / self._load()]

    def _fragments(self) -> list[Packet]:
        udp = UDP(sport=self.draw.randrange(1024, 65536), dport=9999)
        return list(fragment(self._head() / udp / Raw(self.draw.randbytes(1800)), fragsize=800))


def hostile(count: int, *, seed: int) -> list[bytes]:
    """Frames that somebody has been at: bytes changed, cut, doubled, other layers put in."""
    draw, good = random.Random(seed), Traffic(seed)
    frames = []
    for packet in good.packets(count):
        ether, body = Ether(src=MARK, dst=ROUTER), packet
        if draw.random() < 0.05:
            body = IPv6(src="fd01::2", dst="fd02::2") / packet.payload
        if draw.random() < 0.05:
            ether /= Dot1Q(vlan=draw.randrange(4096))
        data = bytearray(bytes(ether / body))
        # Most faults where the headers are; the addresses of the link stay.
        for _ in range(draw.choice((0, 1, 1, 2, 8))):
            data[draw.randrange(12, min(len(data), 120))] = draw.randrange(256)
        if draw.random() < 0.3:
            del data[draw.randrange(14, len(data)) :]
        if draw.random() < 0.1:
            cut = draw.randrange(12, len(data) + 1)
            data[cut:cut] = data[12:cut]
        frames.append(bytes(data[:1400]))
    return frames
