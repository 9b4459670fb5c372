# SPDX-License-Identifier: GPL-2.0-only
"""Packets that GSO and GRO keep together, changed by a script."""

from __future__ import annotations

import re

import pytest
from wiring import LAID, ROUTED, SET16, flow, hook, tallied, tally, wire

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

ADDRESSES = pytest.mark.parametrize("address", ["10.2.0.2", "fd02::2"])

FORWARD = """
    local number, start, packet = port(skb)
    if number == 9999 then
        print("together", #packet - start)
        {body}
        skb:checksum()
    end
    return ACCEPT
"""

#: The length fields, as they are to be for a packet of so many bytes.
CUT = """
    local length = start + {payload}
    skb:resize(length)
    packet = skb:data()
    if packet:getuint8(0) >> 4 == 4 then
        set16(packet, 2, length)
    else
        set16(packet, 4, length - 40)
    end
    set16(packet, start - 4, length - start + 8)
"""


def train(machine: Machine, address: str, count: int, *, port: int = 9999) -> list[str]:
    return machine.succeed(f"python3 /tmp/clients.py train a b {address} {count} {port}").split()


def chain(machine: Machine) -> None:
    """The router's card chains datagrams that come one by one."""
    machine.succeed(
        "ip netns exec a ethtool -K va tx off",
        "ethtool -K ra gro on rx-gro-list on",
        "ethtool -K rb tx off",
    )


@ADDRESSES
def test_chain_is_written_to_the_last_packet(machine: Machine, address: str) -> None:
    wire(machine, ROUTED)
    chain(machine)
    body = "for at = start + 500, #packet - 1, 1000 do packet:setuint8(at, 0xaa) end"
    hook(machine, "INET", "inet.FORWARD", FORWARD.format(body=body))
    assert train(machine, address, 8) == [f"{number}:1000:1" for number in range(8)]
    machine.succeed("dmesg | grep 'together.*8000'")


@ADDRESSES
def test_chain_with_another_port_keeps_its_sums(machine: Machine, address: str) -> None:
    wire(machine, ROUTED)
    chain(machine)
    hook(machine, "INET", "inet.FORWARD", FORWARD.format(body="packet:setuint8(start - 5, 14)"))
    came = train(machine, address, 8, port=9998)
    assert came == [f"{number}:1000:0" for number in range(8)]
    machine.succeed("dmesg | grep 'together.*8000'")


@ADDRESSES
@pytest.mark.parametrize(
    ("payload", "came"),
    [(2500, ["0:1000:0", "1:1000:0", "2:500:0"]), (1000, ["0:1000:0"]), (400, ["0:400:0"])],
)
def test_super_packet_is_cut(machine: Machine, address: str, payload: int, came: list[str]) -> None:
    wire(machine, ROUTED)
    # Whole to the router, in pieces from there.
    machine.succeed("ethtool -K rb tx off")
    body = FORWARD.format(body=CUT.format(payload=payload))
    hook(machine, "INET", "inet.FORWARD", body, before=SET16)
    assert train(machine, address, 8) == came
    machine.succeed("dmesg | grep 'together.*8000'")


#: What a packet of a protocol to 9999 says of itself.
SEGMENTS = """
    local view = skb:data("net")
    local six = view:getuint8(0) >> 4 == 6
    local start = six and 40 or (view:getuint8(0) & 15) * 4
    if view:getuint8(six and 6 or 9) == {protocol} and view:getuint8(start + 3) == 15 then
        print("segments", #view - start, skb:segments())
    end
    return ACCEPT
"""


def segments(machine: Machine) -> list[tuple[int, int, int]]:
    """Of each packet: the length behind IP's header, how many, how long."""
    said = re.findall(r"segments\s+(\d+)\s+(\d+)\s+(\d+)", machine.succeed("dmesg"))
    return [(int(length), int(count), int(size)) for length, count, size in said]


@ADDRESSES
@pytest.mark.parametrize("chained", [False, True])
def test_datagrams_sent_at_once_are_counted(machine: Machine, address: str, chained: bool) -> None:
    wire(machine, ROUTED)
    if chained:
        chain(machine)
    hook(machine, "INET", "inet.FORWARD", SEGMENTS.format(protocol=17))
    assert len(train(machine, address, 8)) == 8
    assert (8008, 8, 1000) in segments(machine)
    assert flow(machine, "a", "b", address, 9999) == ["arrived"]
    header = 40 if ":" in address else 20
    assert segments(machine)[-1] == (11, 1, header + 11)


@ADDRESSES
def test_segments_of_tcp_are_counted(machine: Machine, address: str) -> None:
    wire(machine, ROUTED)
    hook(machine, "INET", "inet.FORWARD", SEGMENTS.format(protocol=6))
    machine.succeed(f"python3 /tmp/clients.py stream a b {address} 500000")
    # With time stamps, which each of them has.
    payload = 1500 - 32 - (40 if ":" in address else 20)
    found = [said for said in segments(machine) if said[1] > 1]
    # How many there are together is the sender's pace.
    assert max(count for _, count, _ in found) > 2
    for length, count, size in found:
        assert size == payload
        assert (count - 1) * size < length - 32 <= count * size


#: What a list of packets lets be done to it, and what not.
LIST = """
    local packet = skb:data("net")
    local six = packet:getuint8(0) >> 4 == 6
    if packet:getuint8(six and 6 or 9) == 132 and #packet > 3000 then
        local far = #packet - 1
        print("list", packet:getuint8(far) >= 0)
        local count, most = skb:segments()
        print("count", count > 1 and most <= 1500 and count * most > #packet - 60)
        print("far", pcall(packet.setuint8, packet, far, 0))
        print("cut", pcall(skb.resize, skb, 3000))
        print("copy", pcall(skb.copy, skb))
        packet:setuint8(six and 7 or 8, 9)
        skb:checksum()
    end
    return ACCEPT
"""


@ADDRESSES
@pytest.mark.parametrize("place", ["LOCAL_OUT", "FORWARD"])
def test_list_of_packets_changes_in_its_headers_only(
    machine: Machine, address: str, place: str
) -> None:
    wire(machine, ROUTED)
    # In pieces from the router on, which is where a spoilt list shows.
    machine.succeed("modprobe sctp", "ethtool -K rb tx-sctp-segmentation off")
    namespace = "a" if place == "LOCAL_OUT" else ""
    hook(machine, "INET", f"inet.{place}", LIST, namespace=namespace)
    hops = 9 - (place == "LOCAL_OUT")
    field = "ip6 hoplimit" if ":" in address else "ip ttl"
    tally(machine, "input", namespace="b", changed=f"meta l4proto sctp {field} {hops}")
    said = machine.succeed(f"python3 /tmp/clients.py sctp a b {address} 1048576")
    assert said == "1048576 True\n"
    assert tallied(machine, "changed", namespace="b") > 100
    log = machine.succeed("dmesg")
    assert re.search(r"list\s+true", log), "SCTP made a list"
    assert set(re.findall(r"count\s+(\w+)", log)) == {"true"}
    for what in ("far", "cut", "copy"):
        assert set(re.findall(rf"{what}\s+(false.*)", log)) == {"false\tEOPNOTSUPP"}, what


@pytest.mark.parametrize("address", ["10.1.0.1", "fd01::1"])
def test_packet_too_long_for_its_header_has_its_sum(
    machine: Machine, kernel: KernelInfo, address: str
) -> None:
    if ":" not in address and kernel.line < (6, 3):
        pytest.skip("BIG TCP is for IPv6 only here")
    wire(machine, ROUTED)
    machine.succeed(
        "python3 /tmp/clients.py big_tcp a va 150000",
        # As much at once as there is, from the first on, whatever the host's pace.
        "ip netns exec a sysctl -qw net.ipv4.tcp_tso_rtt_log=31 "
        "net.ipv4.tcp_wmem='4096 4000000 6000000'",
        "sysctl -qw net.ipv4.tcp_rmem='4096 4000000 6000000'",
        "ip -n a route change 10.1.0.0/24 dev va initcwnd 400",
        "ip -n a -6 route change fd01::/64 dev va metric 256 initcwnd 400",
        # In pieces on the wire, and nobody takes a wrong sum for a good one.
        "ip netns exec a ethtool -K va tx off",
    )
    hook(
        machine,
        "INET",
        "inet.LOCAL_OUT",
        """
        local view = skb:data()
        if #view > 65575 then
            local start = tcp(view)
            -- The urgent pointer, which means nothing without its flag.
            view:setuint8(start + 19, 1)
            print("summed", pcall(skb.checksum, skb))
        end
        return ACCEPT""",
        before='local tcp = require("packet").tcp',
        namespace="a",
    )
    assert machine.succeed(f"python3 /tmp/clients.py stream a - {address} 2000000") == "2000000\n"
    machine.succeed("dmesg | grep 'summed.*true'", "! dmesg | grep 'summed.*false'")
    # A segment with a wrong sum comes again.
    assert machine.succeed("ip netns exec a nstat -asz TcpRetransSegs").split()[-2] == "0"
