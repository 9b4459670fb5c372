# SPDX-License-Identifier: GPL-2.0-only
"""What a packet and its connection are marked with, and in which VLAN it came."""

from __future__ import annotations

import pytest
from wiring import BARE, BRIDGED, LAID, ROUTED, flow, hook, tallied, tally, wire

from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)


def test_mark_is_seen_by_routes_and_rules(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.succeed(
        "ip rule add fwmark 0x80000007 table 7; ip route add blackhole default table 7",
        "ip -6 rule add fwmark 0x80000007 table 7; ip -6 route add blackhole default table 7",
    )
    tally(machine, "forward", marked="meta mark 8")
    hook(
        machine,
        "INET",
        "inet.PRE_ROUTING",
        """
        assert(skb:mark() == 0)
        if port(skb) == 9999 then assert(skb:mark(0x80000007) == 0x80000007) end
        if port(skb) == 9998 then skb:mark(8) assert(skb:mark() == 8) end
        return ACCEPT""",
        options='fallback = "closed"',
    )
    for number, address in enumerate(("10.2.0.2", "fd02::2"), start=1):
        assert flow(machine, "a", "b", address, 9999, 9998, 9997) == ["lost", "arrived", "arrived"]
        assert tallied(machine, "marked") == number


def test_mark_of_a_connection_stays_with_it(machine: Machine) -> None:
    wire(machine, ROUTED)
    tally(machine, "forward", marked="ct mark 5")
    hook(
        machine,
        "INET",
        "inet.FORWARD",
        """
        local before = skb:connmark()
        if port(skb) == 9999 and before == 0 then assert(skb:connmark(5) == 5) end
        if port(skb) then print("mark", before, skb:connmark()) end
        return ACCEPT""",
        options="conntrack = true",
    )
    for address in ("10.2.0.2", "fd02::2"):
        machine.succeed("dmesg -C")
        assert machine.succeed(f"python3 /tmp/clients.py twice a b {address} 9999") == "again\n"
        said = machine.succeed("dmesg | sed -n 's/.*hook: mark//p'").split()
        assert said == ["0", "5", "5", "5", "5", "5"], "a packet, its answer, and another"
    assert tallied(machine, "marked") == 6
    assert flow(machine, "a", "b", "10.2.0.2", 9998) == ["arrived"]
    assert tallied(machine, "marked") == 6, "another connection"
    assert "mark=5 " in machine.succeed("conntrack -L -p udp --orig-port-dst 9999")


def test_template_of_a_zone_is_no_connection(machine: Machine) -> None:
    wire(machine, ROUTED)
    # As long as conntrack has not seen the packet, all that it has is what to make one by.
    machine.succeed(
        "nft 'add table inet t; "
        "add chain inet t raw { type filter hook prerouting priority -300; }; "
        "add rule inet t raw ct zone set 7'"
    )
    hook(
        machine,
        "INET",
        "inet.PRE_ROUTING",
        """
        if port(skb) then
            print("before", skb:connmark(5), skb:conntrack(), skb:tuple(), skb:traffic())
        end
        return ACCEPT""",
        options="priority = -250, conntrack = true",
    )
    for address in ("10.2.0.2", "fd02::2"):
        assert flow(machine, "a", "b", address, 9999, 9998) == ["arrived", "arrived"]
    said = machine.succeed("dmesg | sed -n 's/.*hook: before//p'").split()
    assert said == ["nil"] * 16
    assert "zone=7" in machine.succeed("conntrack -L -p udp --orig-port-dst 9999")


@pytest.mark.machine(prepare=BARE)
def test_vlan_of_a_packet(machine: Machine) -> None:
    wire(machine, BRIDGED)
    for end, host in (("a", 2), ("b", 3)):
        for number in (7, 8):
            machine.succeed(
                f"ip -n {end} link add link v{end} name vlan{number} type vlan id {number}",
                f"ip -n {end} address add 10.{number}.0.{host}/24 dev vlan{number}",
                f"ip -n {end} link set vlan{number} up",
            )
    hook(
        machine,
        "BRIDGE",
        "br.PRE_ROUTING",
        """
        if port(skb) == 9999 and skb:vlan() == 7 then return DROP end
        if port(skb) == 9998 and skb:vlan() == nil then return DROP end
        return ACCEPT""",
    )
    assert flow(machine, "a", "b", "10.7.0.3", 9999, 9998) == ["lost", "arrived"]
    assert flow(machine, "a", "b", "10.8.0.3", 9999, 9998) == ["arrived", "arrived"]
    assert flow(machine, "a", "b", "10.3.0.3", 9999, 9998) == ["arrived", "lost"]
