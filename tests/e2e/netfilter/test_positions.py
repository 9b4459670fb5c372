# SPDX-License-Identifier: GPL-2.0-only
"""A hook drops one port's datagrams, in every family and position there is."""

from __future__ import annotations

import pytest
from wiring import BARE, BRIDGED, LAID, PORT, ROUTED, flow, hook, hooks, run, wire

from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

DROP = "return port(skb) == 9999 and DROP or ACCEPT"

#: Each position drops what goes to a port of its own.
PORTS = {
    "PRE_ROUTING": 9001,
    "LOCAL_IN": 9002,
    "FORWARD": 9003,
    "LOCAL_OUT": 9004,
    "POST_ROUTING": 9005,
}

#: The ports that are lost on each way: from, to, host part of the address.
WAYS = {
    ("a", "b", "2.0.2", "2::2"): {9001, 9003, 9005},
    ("a", "-", "1.0.1", "1::1"): {9001, 9002},
    ("-", "b", "2.0.2", "2::2"): {9004, 9005},
}


def lost(machine: Machine, sender: str, receiver: str, address: str) -> set[int]:
    """The ports of PORTS at which nothing arrives."""
    fates = flow(machine, sender, receiver, address, *PORTS.values())
    return {port for port, fate in zip(PORTS.values(), fates, strict=True) if fate == "lost"}


@pytest.mark.limit(120)
@pytest.mark.parametrize("family", ["IPV4", "IPV6", "INET"])
def test_routed(machine: Machine, family: str) -> None:
    wire(machine, ROUTED)
    hooks(machine, family, {f"inet.{place}": port for place, port in PORTS.items()})
    for (sender, receiver, four, six), expected in WAYS.items():
        for version, address in (("IPV4", f"10.{four}"), ("IPV6", f"fd0{six}")):
            caught = expected if family in ("INET", version) else set()
            assert lost(machine, sender, receiver, address) == caught, (sender, receiver, address)
    machine.succeed("lunatik stop hook")
    assert lost(machine, "a", "b", "10.2.0.2") == set()


@pytest.mark.limit(120)
@pytest.mark.machine(prepare=BARE)
def test_bridged(machine: Machine) -> None:
    wire(machine, BRIDGED)
    # Before br_netfilter, which 6.1's FORWARD does not come back from to those at its own place.
    hooks(
        machine,
        "BRIDGE",
        {f"br.{place}": port for place, port in PORTS.items()},
        options="priority = nf.br.pri.FILTER_BRIDGED",
    )
    for (sender, receiver, _, _), expected in WAYS.items():
        host = 1 if receiver == "-" else 3
        for address in (f"10.3.0.{host}", f"fd03::{host}"):
            assert lost(machine, sender, receiver, address) == expected, (receiver, address)


@pytest.mark.parametrize(
    ("family", "place", "device"),
    [
        ("NETDEV", "netdev.INGRESS", "ra"),
        ("NETDEV", "netdev.EGRESS", "rb"),
        ("INET", "inet.INGRESS", "ra"),
    ],
)
def test_at_a_device(machine: Machine, family: str, place: str, device: str) -> None:
    wire(machine, ROUTED)
    hook(machine, family, place, DROP, options=f'dev = "{device}"')
    assert flow(machine, "a", "b", "10.2.0.2", 9999, 9998) == ["lost", "arrived"]
    assert flow(machine, "a", "b", "fd02::2", 9999, 9998) == ["lost", "arrived"]
    assert flow(machine, "b", "a", "10.1.0.2", 9999) == ["arrived"], "the other way"
    machine.succeed(f"ip link delete {device}")
    machine.succeed("lunatik stop hook")


@pytest.mark.parametrize("position", ["IN", "OUT"])
def test_arp(machine: Machine, position: str) -> None:
    wire(machine, ROUTED)
    machine.succeed("ip netns exec a ping -c 1 -W 2 10.1.0.1")
    hook(machine, "ARP", f"arp.{position}", "return DROP")
    # Here first: a looks at who asks, and where a neighbour is known it is asked again.
    machine.succeed("ip neighbour flush all", "ip -n a neighbour flush all")
    machine.fail("ip netns exec a ping -c 1 -W 1 10.1.0.1")
    machine.succeed("lunatik stop hook")
    machine.wait_until_succeeds("ip netns exec a ping -c 1 -W 1 10.1.0.1")


@pytest.mark.machine(prepare=BARE)
def test_arp_through_a_bridge(machine: Machine) -> None:
    """Those of a bridge come to the hooks of ARP where br_netfilter is at work."""
    wire(machine, BRIDGED)
    machine.succeed("sysctl -qw net.bridge.bridge-nf-call-arptables=1")
    hook(machine, "ARP", "arp.FORWARD", "return DROP")
    machine.fail("ip netns exec a ping -c 1 -W 1 10.3.0.3")
    # Who asks for the bridge's own address is not forwarded.
    machine.succeed("ip netns exec a ping -c 1 -W 5 10.3.0.1", "lunatik stop hook")
    machine.wait_until_succeeds("ip netns exec a ping -c 1 -W 1 10.3.0.3")


def test_priorities_decide_who_is_first(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.succeed(
        "nft 'add table ip t; add chain ip t in { type filter hook input priority 0; }; "
        "add rule ip t in udp dport 9999 meta mark 7 drop'"
    )
    marks = "return ACCEPT, 7"
    hook(machine, "IPV4", "inet.LOCAL_IN", marks, options="priority = 10")
    assert flow(machine, "a", "-", "10.1.0.1", 9999) == ["arrived"], "marked too late"
    machine.succeed("lunatik stop hook")
    hook(machine, "IPV4", "inet.LOCAL_IN", marks, options="priority = -10")
    assert flow(machine, "a", "-", "10.1.0.1", 9999) == ["lost"], "marked before"


def test_name_of_a_device_need_not_be_the_tables_own(machine: Machine) -> None:
    wire(machine, ROUTED)
    # Made for whoever asks, and gone before the hook is in, its memory somebody else's.
    run(
        machine,
        PORT
        + """
        local others = {}
        local function drop(skb) return port(skb) == 9999 and DROP or ACCEPT end
        local made = {
            dev = function() return string.char(114, 97) end,
            hook = function()
                collectgarbage()
                for number = 1, 2000 do others[number] = tostring(number) end
                return drop
            end,
        }
        netfilter.register(setmetatable(
            {pf = nf.proto.NETDEV, hooknum = nf.netdev.INGRESS},
            {__index = function(_, name) return made[name] and made[name]() end}
        ))""",
    )
    assert flow(machine, "a", "b", "10.2.0.2", 9999, 9998) == ["lost", "arrived"]


def test_queue_of_any_number(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_IN",
        "return port(skb) and nf.action.QUEUE | port(skb) << 16 or ACCEPT",
    )
    machine.succeed("python3 /tmp/clients.py queue 40000 >/tmp/queued 2>&1 &")
    machine.wait_until_succeeds("grep 40000 /proc/net/netfilter/nfnetlink_queue")
    assert flow(machine, "a", "-", "10.1.0.1", 7232, 40000) == ["lost", "arrived"]


@pytest.mark.parametrize(
    ("family", "place", "options"),
    [
        ("NETDEV", "netdev.INGRESS", 'dev = "ra"'),
        ("INET", "inet.INGRESS", 'dev = "ra"'),
        ("ARP", "arp.IN", ""),
        # Bits that are neither verdict nor number.
        ("IPV4", "inet.LOCAL_IN", ""),
    ],
)
def test_queue_that_there_is_not_is_taken_as_a_failure(
    machine: Machine, family: str, place: str, options: str
) -> None:
    wire(machine, ROUTED)
    verdict = "nf.action.QUEUE" if family != "IPV4" else "nf.action.QUEUE | 1 << 8"
    hook(machine, family, place, f"return {verdict}", options=options)
    assert flow(machine, "a", "-", "10.1.0.1", 9999) == ["arrived"]
    machine.wait_until_succeeds("dmesg | grep 'netfilter hook returned'")


#: Places that do not exist, and the word of the message that says so.
NOWHERE = (
    ("hooknum = 99, pf = nf.proto.IPV4", "hooknum"),
    ("hooknum = 0, pf = nf.proto.NETDEV", "dev"),
    ('hooknum = 1, pf = nf.proto.IPV4, dev = "lo"', "dev"),
    ('hooknum = 0, pf = nf.proto.NETDEV, dev = "none"', "ENODEV"),
    ("hooknum = 0, pf = nf.proto.NETDEV, dev = 7", "bad field 'dev'"),
    ("hooknum = nf.inet.INGRESS, pf = nf.proto.IPV4", "hooknum"),
    ("hooknum = 3, pf = nf.proto.ARP", "hooknum"),
    ("hooknum = nf.br.BROUTING, pf = nf.proto.BRIDGE", "hooknum"),
    ("hooknum = 0, pf = nf.proto.UNSPEC", "pf"),
    ("hooknum = 0, pf = 4", "pf"),
    ('hooknum = 0, pf = nf.proto.IPV4, fallback = "x"', "bad field 'fallback'"),
)


def test_places_that_do_not_exist_are_refused(machine: Machine) -> None:
    for options, complaint in NOWHERE:
        script = f"""
            local nf = require("linux.nf")
            require("netfilter").register{{hook = function() end, {options}}}"""
        machine.copy_to(script.encode(), "/lib/modules/lua/hook.lua")
        done = machine.execute("lunatik run hook softirq")
        assert done.status == 1, options
        assert complaint in done.stderr, options
