# SPDX-License-Identifier: GPL-2.0-only
"""A netfilter hook in Lua decides which packets live."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.vm.machine import Machine

PROBE = Path(__file__).with_name("probe.py")

SCRIPT = """
local netfilter = require("netfilter")
local nf = require("linux.nf")
netfilter.register{{
    hook = function(skb) {body} end,
    pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN, priority = nf.ip.pri.FILTER,
    {options}
}}
"""


def probe(machine: Machine, port: int) -> str:
    """Send a datagram to a port of the machine's own; what became of it."""
    return machine.succeed(f"python3 /tmp/probe.py {port}").strip()


def hook(machine: Machine, body: str, options: str = "") -> None:
    """Run a softirq script with one hook."""
    script = SCRIPT.format(body=body, options=options)
    machine.copy_to(script.encode(), "/lib/modules/lua/hook.lua")
    machine.succeed("lunatik run hook softirq")


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A machine that can probe itself."""
    machine.copy_to(PROBE, "/tmp/probe.py")
    return machine


def test_script_drops_what_it_says_and_nothing_else(node: Machine) -> None:
    assert probe(node, 9999) == "arrived"
    node.succeed("lunatik run examples/drop_port softirq")
    assert probe(node, 9999) == "lost"
    assert probe(node, 9998) == "arrived"
    node.succeed("lunatik stop examples/drop_port")
    assert probe(node, 9999) == "arrived"


def test_failing_script_lets_packets_pass_and_says_why(node: Machine) -> None:
    hook(node, "error('rotten')")
    assert probe(node, 9999) == "arrived"
    node.wait_until_succeeds("dmesg | grep rotten")


def test_failing_script_declared_closed_lets_none_pass(node: Machine) -> None:
    hook(node, "error('rotten')", options='fallback = "closed"')
    assert probe(node, 9999) == "lost"


@pytest.mark.parametrize("verdict", ["nil", "77", "'DROP'", "-1", "nf.action.STOLEN", "1 << 40"])
def test_rubbish_for_a_verdict_is_taken_as_a_failure(node: Machine, verdict: str) -> None:
    hook(node, f"return {verdict}")
    assert probe(node, 9999) == "arrived"
    node.wait_until_succeeds("dmesg | grep 'returned no verdict'")


def test_packet_is_closed_after_its_callback(node: Machine) -> None:
    hook(
        node,
        "if kept and not told then told = true; print(pcall(function() return #kept end)) end "
        "kept = skb:data() return nf.action.ACCEPT",
    )
    probe(node, 9999)
    probe(node, 9999)
    node.wait_until_succeeds("dmesg | grep 'closed'")


def test_write_beyond_the_packet_is_refused(node: Machine) -> None:
    hook(
        node,
        "local packet = skb:data() "
        "for _, offset in ipairs{-1, #packet, #packet - 1, math.maxinteger, math.mininteger} do "
        "local ok, why = pcall(packet.setuint16, packet, offset, 0) "
        "assert(not ok and why:find('out of bounds'), offset) end "
        "print('held') return nf.action.ACCEPT",
    )
    assert probe(node, 9999) == "arrived"
    node.wait_until_succeeds("dmesg | grep held")


def test_mark_chooses_packets_and_is_set(node: Machine) -> None:
    hook(node, "return nf.action.DROP", options="mark = 7")
    assert probe(node, 9999) == "arrived"
    node.succeed(
        "nft 'add table ip t; add chain ip t out { type filter hook output priority 0; }; "
        "add rule ip t out udp dport 9999 meta mark set 7'"
    )
    assert probe(node, 9999) == "lost"
    assert probe(node, 9998) == "arrived"
