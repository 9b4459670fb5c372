# SPDX-License-Identifier: GPL-2.0-only
"""What filters cost a packet, in guest instructions: the same on every host.

One packet is led through IPv4's FORWARD again and again; see
`lunatik-src/tests/benchhook`. The margin is what a filter adds to no hook.

    lab test -s tests/bench/test_netfilter_cost.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from lab.vm.machine import Machine

EXACT = {"icount": True, "cmdline": ("lunatik.hashseed=1",)}

EXAMPLES = Path(__file__).parents[2] / "lunatik-src/examples"

HEAD = {"src": "10.1.0.2", "dst": "10.2.0.2"}
DATAGRAM = bytes(IP(**HEAD) / UDP(sport=1024, dport=9999) / Raw(bytes(64)))
SEGMENT = bytes(IP(**HEAD) / TCP(sport=1024, dport=443, flags="PA") / Raw(bytes(64)))

ONE_BYTE = """
local nf = require("linux.nf")
local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
require("netfilter").register{
	hook = function(skb) return skb:data():getuint8(9) == 99 and DROP or ACCEPT end,
	pf = nf.proto.IPV4, hooknum = nf.inet.FORWARD,
}
"""

NFT = (
    "nft add table ip t",
    "nft 'add chain ip t f { type filter hook forward priority 0; }'",
    "nft add rule ip t f meta l4proto 99 drop",
)


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

    def cost(self, packet: bytes) -> int:
        """Instructions of one way through FORWARD; the least of several tries."""
        text = "".join(f"\\{byte:03d}" for byte in packet)
        return int(self.machine.lua(f'return require("benchhook").forward("{text}", 50)'))

    def of_script(self, script: str, packet: bytes) -> int:
        """The same with a script's hooks in the way."""
        self.machine.copy_to(script.encode(), "/lib/modules/lua/bench_filter.lua")
        self.machine.succeed("lunatik run bench_filter softirq")
        cost = self.cost(packet)
        self.machine.succeed("lunatik stop bench_filter")
        return cost

    def of_rules(self, before: tuple[str, ...], after: str, packet: bytes) -> int:
        """The same with rules of somebody else's."""
        self.machine.succeed(*before)
        cost = self.cost(packet)
        self.machine.succeed(after)
        return cost


@pytest.mark.machine(**EXACT)
@pytest.mark.limit(200)
def test_filters(machine: Machine) -> None:
    bench = Bench(machine)
    costs = {"no hook": bench.cost(DATAGRAM)}
    machine.lua('require("benchhook").hook(true)')
    costs["C hook, one byte"] = bench.cost(DATAGRAM)
    machine.lua('require("benchhook").hook(false)')
    costs["Lua hook, one byte"] = bench.of_script(ONE_BYTE, DATAGRAM)
    costs["nft, one byte"] = bench.of_rules(NFT, "nft delete table ip t", DATAGRAM)
    costs["iptables-nft, one byte"] = bench.of_rules(
        ("iptables-nft -A FORWARD -p 99 -j DROP",), "nft delete table ip filter", DATAGRAM
    )
    costs["rate limiter"] = bench.of_script(example("rate_limit", LIMIT="1000000"), DATAGRAM)
    costs["SNI filter, other traffic"] = bench.of_script(example("sni_block"), DATAGRAM)
    costs["SNI filter, a TLS segment"] = bench.of_script(example("sni_block"), SEGMENT)
    assert bench.cost(DATAGRAM) == pytest.approx(costs["no hook"], abs=5), "all are gone"
    # The last: its table stays, and each packet goes through that.
    costs["iptables-legacy, one byte"] = bench.of_rules(
        ("iptables-legacy -A FORWARD -p 99 -j DROP",), "iptables-legacy -F", DATAGRAM
    )

    print("\nbench packet, instructions: total, over no hook", file=sys.stderr)
    for name, cost in costs.items():
        print(f"  {name:26} {cost:>7} {cost - costs['no hook']:>7}", file=sys.stderr)
    print(f"bench-json {json.dumps({'packet, instructions': costs})}", file=sys.stderr)
    assert costs["no hook"] < costs["C hook, one byte"] < costs["Lua hook, one byte"]
    assert costs["Lua hook, one byte"] < costs["rate limiter"]
