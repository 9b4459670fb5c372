# SPDX-License-Identifier: GPL-2.0-only
"""What filters cost a packet, in guest instructions: the same on every host.

One packet is led through IPv4's FORWARD again and again, or the first two of a
connection, by another source port each time; see `lunatik-src/tests/benchhook`.
The margin is what a filter adds to no hook.

    lab test -s tests/bench/test_netfilter_cost.py
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from lab.vm.machine import Machine

EXACT = {"icount": True, "cmdline": ("lunatik.hashseed=1",)}

EXAMPLES = Path(__file__).parents[2] / "lunatik-src/examples"

HEAD = {"src": "10.1.0.2", "dst": "10.2.0.2"}
DATAGRAM = bytes(IP(**HEAD) / UDP(sport=1024, dport=9999) / Raw(bytes(64)))
TLS = {"sport": 1024, "dport": 443}
SEGMENT = bytes(IP(**HEAD) / TCP(**TLS, flags="PA") / Raw(bytes(64)))


def client_hello(name: bytes, size: int) -> bytes:
    """A ClientHello (RFC 8446, 4.1.2) of so many bytes: the server's name and padding."""
    entry = b"\0" + len(name).to_bytes(2, "big") + name
    entry = len(entry).to_bytes(2, "big") + entry
    extensions = b"\0\0" + len(entry).to_bytes(2, "big") + entry
    body = b"\3\3" + bytes(32) + b"\x20" + bytes(32) + b"\0\2\x13\1" + b"\1\0"
    padding = size - 5 - 4 - len(body) - 2 - len(extensions) - 4
    extensions += b"\0\x15" + padding.to_bytes(2, "big") + bytes(padding)
    body += len(extensions).to_bytes(2, "big") + extensions
    message = b"\1" + len(body).to_bytes(3, "big") + body
    return b"\x16\3\1" + len(message).to_bytes(2, "big") + message


#: How a TLS connection begins; about as much as curl sends.
SYN = bytes(IP(**HEAD) / TCP(**TLS, flags="S", seq=1))
HELLO, BLOCKED = (
    bytes(IP(**HEAD) / TCP(**TLS, flags="PA", seq=2) / Raw(client_hello(name, 517)))
    for name in (b"free.example", b"blocked.example")
)

ONE_BYTE = """
local nf = require("linux.nf")
local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
require("netfilter").register{
	hook = function(skb) return skb:data():getuint8(9) == 99 and DROP or ACCEPT end,
	pf = nf.proto.IPV4, hooknum = nf.inet.FORWARD,
}
"""

CHAIN = (
    "nft add table ip t",
    "nft 'add chain ip t f { type filter hook forward priority 0; }'",
)
NFT = (*CHAIN, "nft add rule ip t f meta l4proto 99 drop")
#: A source's packets beyond so many a second: what `rate_limit` drops.
NFT_RATE = (
    *CHAIN,
    "nft 'add set ip t sources { type ipv4_addr; flags dynamic; timeout 10s; }'",
    "nft 'add rule ip t f update @sources"
    " { ip saddr limit rate over 10000/second burst 10000 packets } drop'",
)
RATE = (
    "-m hashlimit --hashlimit-above 10000/second --hashlimit-burst 10000"
    " --hashlimit-mode srcip --hashlimit-name sources"
)
#: As near as rules come to `sni_block`: the name in one packet, wherever it stands.
SNI = "-p tcp --dport 443 -m string --algo bm --string blocked.example"


def example(name: str, **constants: str) -> str:
    """An example, with other constants at its top."""
    script = (EXAMPLES / f"{name}.lua").read_text()
    for key, value in constants.items():
        before, mark, after = script.partition(f"local {key} <const> = ")
        assert mark, key
        script = before + mark + value + "--" + after
    return script


class Bench:
    """One machine, one filter after the other."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine

    def cost(self, *packets: bytes) -> int:
        """Instructions of one way through FORWARD; the least of several tries.

        Two packets are a connection's first from one end, a new one each time.
        """
        return int(self.lead(*packets))

    def lead(self, *packets: bytes) -> str:
        """The same; "nil" where a packet was dropped."""
        texts = ", ".join(
            '"' + "".join(f"\\{byte:03d}" for byte in packet) + '"' for packet in packets
        )
        # Of connections no more than sni_block waits for.
        what = f"forward({texts}, 50)" if len(packets) == 1 else f"connect({texts}, 20)"
        return self.machine.lua(f'return require("benchhook").{what}').strip()

    @contextlib.contextmanager
    def script(self, text: str) -> Iterator[None]:
        """A script's hooks are in the way."""
        self.machine.copy_to(text.encode(), "/lib/modules/lua/bench_filter.lua")
        self.machine.succeed("lunatik run bench_filter softirq")
        yield
        self.machine.succeed("lunatik stop bench_filter")

    def of_script(self, text: str, *packets: bytes) -> int:
        """The same with a script's hooks in the way."""
        with self.script(text):
            return self.cost(*packets)

    @contextlib.contextmanager
    def nft(self, rules: tuple[str, ...]) -> Iterator[None]:
        """The rules of a table t are in the way."""
        self.machine.succeed(*rules)
        yield
        self.machine.succeed("nft delete table ip t")

    @contextlib.contextmanager
    def iptables(self, match: str, command: str = "iptables-nft") -> Iterator[None]:
        """What matches is dropped. A legacy table stays, empty, and each packet goes through it."""
        self.machine.succeed(f"{command} -A FORWARD {match} -j DROP")
        yield
        legacy = command == "iptables-legacy"
        self.machine.succeed(f"{command} -F" if legacy else "nft delete table ip filter")


@pytest.mark.machine(**EXACT)
@pytest.mark.limit(300)
def test_filters(machine: Machine) -> None:
    bench = Bench(machine)
    costs = {"no hook": bench.cost(DATAGRAM)}
    machine.lua('require("benchhook").hook(true)')
    costs["C hook, one byte"] = bench.cost(DATAGRAM)
    machine.lua('require("benchhook").hook(false)')
    costs["Lua hook, one byte"] = bench.of_script(ONE_BYTE, DATAGRAM)
    with bench.nft(NFT):
        costs["nft, one byte"] = bench.cost(DATAGRAM)
    with bench.iptables("-p 99"):
        costs["iptables-nft, one byte"] = bench.cost(DATAGRAM)
    costs["rate limiter"] = bench.of_script(example("rate_limit", LIMIT="1000000"), DATAGRAM)
    with bench.nft(NFT_RATE):
        costs["nft, rate limiter"] = bench.cost(DATAGRAM)
    with bench.iptables(RATE):
        costs["iptables-nft, rate limiter"] = bench.cost(DATAGRAM)
    costs["SNI filter, other traffic"] = bench.of_script(example("sni_block"), DATAGRAM)
    costs["SNI filter, later TLS"] = bench.of_script(example("sni_block"), SEGMENT)
    both = {"no hook": bench.cost(SYN, HELLO)}
    both["SNI filter"] = bench.of_script(example("sni_block"), SYN, HELLO)
    with bench.script(example("sni_block")):
        assert bench.lead(SYN, BLOCKED) == "nil", "it reads the name"
    with bench.iptables(SNI):
        costs["iptables-nft, SNI, other traffic"] = bench.cost(DATAGRAM)
        costs["iptables-nft, SNI, later TLS"] = bench.cost(SEGMENT)
        both["iptables-nft, string"] = bench.cost(SYN, HELLO)
        assert bench.lead(SYN, BLOCKED) == "nil", "it finds the name"
    assert bench.cost(DATAGRAM) == pytest.approx(costs["no hook"], abs=5), "all are gone"
    # The last, for its table stays.
    with bench.iptables("-p 99", "iptables-legacy"):
        costs["iptables-legacy, one byte"] = bench.cost(DATAGRAM)
    with bench.iptables(RATE, "iptables-legacy"):
        costs["iptables-legacy, rate limiter"] = bench.cost(DATAGRAM)
    with bench.iptables(SNI, "iptables-legacy"):
        costs["iptables-legacy, SNI, later TLS"] = bench.cost(SEGMENT)
        both["iptables-legacy, string"] = bench.cost(SYN, HELLO)

    print("\nbench packet, instructions: total, over no hook", file=sys.stderr)
    for name, cost in costs.items():
        print(f"  {name:32} {cost:>7} {cost - costs['no hook']:>7}", file=sys.stderr)
    print(f"bench-json {json.dumps({'packet, instructions': costs})}", file=sys.stderr)
    print("\nbench SYN and ClientHello, instructions: total, over no hook", file=sys.stderr)
    for name, cost in both.items():
        print(f"  {name:32} {cost:>7} {cost - both['no hook']:>7}", file=sys.stderr)
    print(f"bench-json {json.dumps({'SYN and ClientHello, instructions': both})}", file=sys.stderr)
    assert costs["no hook"] < costs["C hook, one byte"] < costs["Lua hook, one byte"]
    assert costs["Lua hook, one byte"] < costs["rate limiter"]
