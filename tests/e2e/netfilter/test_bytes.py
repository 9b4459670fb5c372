# SPDX-License-Identifier: GPL-2.0-only
"""What a script writes into a packet reaches its receiver, and nobody else."""

from __future__ import annotations

import pytest
from frames import replay
from scapy.layers.inet import IP, UDP, IPOption_LSRR, fragment
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Raw
from wiring import LAID, ROUTED, SET16, flow, hook, wire

from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

MANGLE = """
    local number, start, packet = port(skb)
    if number == 9999 then
        assert(packet:getuint8(start) == 108)
        packet:setuint8(start, 88)
        if packet:getuint8(start) ~= 88 then return DROP end
        skb:checksum()
        if packet:getuint8(start) ~= 88 then return DROP end
    end
    return ACCEPT
"""


@pytest.mark.parametrize(
    ("place", "namespace"),
    [("PRE_ROUTING", "b"), ("LOCAL_IN", "b"), ("FORWARD", ""), ("LOCAL_OUT", "a")],
)
@pytest.mark.parametrize("address", ["10.2.0.2", "fd02::2"])
def test_rewritten_payload_arrives_with_good_sums(
    machine: Machine, place: str, namespace: str, address: str
) -> None:
    wire(machine, ROUTED)
    machine.succeed("ip netns exec a ethtool -K va tx off")
    hook(machine, "INET", f"inet.{place}", MANGLE, namespace=namespace)
    assert flow(machine, "a", "b", address, 9999, 9998) == ["mangled:b'Xab'", "arrived"]


def tunnel(machine: Machine, outer: str) -> None:
    """VXLAN between the router and b, whose own datagrams have a sum ("udpcsum") or none."""
    for ip, here, there in (("ip", 1, 2), ("ip -n b", 2, 1)):
        machine.succeed(
            f"{ip} link add vx type vxlan id 7 dstport 4789 {outer} "
            f"local 10.2.0.{here} remote 10.2.0.{there}",
            f"{ip} address add 10.4.0.{here}/24 dev vx; {ip} link set vx up",
        )
    # Nobody on the way takes a missing sum for a good one.
    machine.succeed("ethtool -K rb tx off; ip netns exec b ethtool -K vb tx off")


def test_sums_are_made_right_around_a_packet_whose_own_is_still_missing(machine: Machine) -> None:
    wire(machine, ROUTED)
    tunnel(machine, "udpcsum")
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_OUT",
        """
        if port(skb) == 4789 then
            skb:checksum()
            print("around", #skb)
        end
        return ACCEPT""",
    )
    assert flow(machine, "-", "b", "10.4.0.2", 9999) == ["arrived"]
    machine.succeed("dmesg | grep around")


@pytest.mark.parametrize("outer", ["udpcsum", "noudpcsum"])
def test_super_packets_in_a_tunnel_keep_their_sums(machine: Machine, outer: str) -> None:
    """GSO fills in a tunnel's sum where there is one, and leaves it out where there is none."""
    wire(machine, ROUTED)
    tunnel(machine, outer)
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_OUT",
        """
        if port(skb) == 4789 then
            skb:checksum()
            local count, size = skb:segments()
            if #skb > 2000 then print("large", size, count == (#skb - 103) // size + 1) end
        end
        return ACCEPT""",
    )
    same, _ = machine.succeed("python3 /tmp/clients.py file - b 10.4.0.2").split()
    assert same == "True"
    # Behind the headers of both: 50 bytes are the tunnel's.
    machine.succeed("dmesg | grep 'large.1398.true'", "! dmesg | grep 'large.*false'")
    # A segment with a wrong sum comes again, in a packet of its own, until one fits.
    assert machine.succeed("nstat -asz TcpRetransSegs").split()[-2] == "0"


def tell_sums(machine: Machine) -> None:
    """Have the log say of each replayed packet whether its sums can be made."""
    wire(machine, ROUTED)
    hook(
        machine,
        "NETDEV",
        "netdev.INGRESS",
        """
        if skb:data("mac"):getstring(6, 6) == "\\2\\0\\0\\0\\0\\x99" then
            print("sum", pcall(skb.checksum, skb))
        end
        return ACCEPT""",
        options='dev = "ra"',
    )


def test_headers_longer_than_their_payload_have_no_sum(machine: Machine) -> None:
    tell_sums(machine)
    packet = IPv6(src="fd01::2", dst="fd02::2", plen=4) / IPv6ExtHdrDestOpt()
    replay(machine, packet / UDP(dport=9999) / Raw(bytes(64)))
    machine.wait_until_succeeds("dmesg | grep 'sum.*false.*EINVAL'")


@pytest.mark.parametrize(("left", "said"), [(1, "false.*EPROTONOSUPPORT"), (0, "true")])
def test_a_source_route_has_its_sum_elsewhere(machine: Machine, left: int, said: str) -> None:
    """It covers the last address of the route: not to be made here, until that is reached."""
    tell_sums(machine)
    route = IPv6ExtHdrRouting(type=2, segleft=left, addresses=["fd02::9"])
    six = IPv6(src="fd01::2", dst="fd02::2") / route / UDP(dport=9999) / Raw(bytes(64))
    option = IPOption_LSRR(routers=["10.2.0.9"], pointer=4 if left else 8)
    four = IP(src="10.1.0.2", dst="10.2.0.2", options=[option]) / UDP(dport=9999) / Raw(bytes(64))
    replay(machine, six, four)
    machine.wait_until_succeeds(f"test $(dmesg | grep -c 'sum.*{said}') = 2")


def test_write_does_not_reach_who_listens_on_the_wire(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(machine, "IPV4", "inet.PRE_ROUTING", MANGLE, namespace="b")
    seen = machine.succeed("python3 /tmp/clients.py tap a b vb 10.2.0.2").split()
    assert seen == ["Xab", "lab"], "the receiver's and the listener's"


def test_write_does_not_reach_the_page_cache(machine: Machine) -> None:
    wire(machine, ROUTED)
    # In GSO packets of many pages, each of them the file's own.
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_OUT",
        """
        local packet = skb:data()
        if packet:getuint8(9) == 6 and #packet > 2000 then
            packet:setuint8(#packet - 1, 0xaa)
            packet:setuint8(1500, 0xaa)
            skb:checksum()
        end
        return ACCEPT""",
        namespace="a",
    )
    same, seen = machine.succeed("python3 /tmp/clients.py file a b 10.2.0.2").split()
    assert same == "True", "the file changed"
    # The file itself has 1024 bytes of that value.
    assert int(seen) > 1024, "nothing was rewritten"


@pytest.mark.parametrize("address", ["10.2.0.2", "fd02::2"])
def test_reassembled_datagram_is_read_and_written_at_its_end(
    machine: Machine, address: str
) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "INET",
        "inet.LOCAL_IN",
        """
        local packet = skb:data()
        if #packet > 4000 then
            assert(packet:getuint8(#packet - 1) == 62)
            packet:setuint8(#packet - 1, 33)
            skb:checksum()
        end
        return ACCEPT""",
        namespace="b",
        options="priority = 0, conntrack = true",
    )
    came = machine.succeed(f"python3 /tmp/clients.py big a b {address} 4500").split()
    assert came == ["4500", "<", "!"]


def test_packet_grows_and_shrinks(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_IN",
        """
        local number, start, packet = port(skb)
        if number == 9999 or number == 9998 then
            local length = #packet + (number == 9999 and 2 or -1)
            skb:resize(length)
            assert(not pcall(packet.getuint8, packet, length))
            packet = skb:data()
            set16(packet, 2, length)
            set16(packet, start - 4, length - start + 8)
            if number == 9999 then packet:setstring(start + 3, "!!") end
            skb:checksum()
        end
        return ACCEPT""",
        namespace="b",
        before=SET16,
    )
    assert flow(machine, "a", "b", "10.2.0.2", 9999, 9998, 9997) == [
        "mangled:b'lab!!'",
        "mangled:b'la'",
        "arrived",
    ]


@pytest.mark.parametrize(
    ("family", "place", "options"),
    [
        ("IPV4", "inet.LOCAL_IN", ""),
        ("IPV6", "inet.LOCAL_OUT", ""),
        ("NETDEV", "netdev.INGRESS", 'dev = "ra"'),
        ("NETDEV", "netdev.EGRESS", 'dev = "ra"'),
    ],
)
def test_packet_is_not_cut_below_its_headers(
    machine: Machine, family: str, place: str, options: str
) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        family,
        place,
        """
        if port(skb) then
            local length, net, mac = #skb, skb:data("net"), skb:data("mac")
            local headers = length - #net + (net:getuint8(0) >> 4 == 4 and 20 or 40)
            for less = 0, headers - 1 do
                local ok, why = pcall(skb.resize, skb, less)
                if ok then print("cut to", less) return DROP end
                assert(why:find("EINVAL"), why)
                assert(#skb == length and #net <= length)
                assert(not pcall(net.getuint8, net, 0x90000000))
                assert(not pcall(mac.setuint8, mac, 0x90000000, 0))
            end
            print("stayed whole")
        end
        return ACCEPT""",
        options=options,
    )
    address, sender, receiver = {
        "inet.LOCAL_IN": ("10.1.0.1", "a", "-"),
        "inet.LOCAL_OUT": ("fd01::2", "-", "a"),
        "netdev.INGRESS": ("10.1.0.1", "a", "-"),
        "netdev.EGRESS": ("fd01::2", "-", "a"),
    }[place]
    assert flow(machine, sender, receiver, address, 9999) == ["arrived"]
    machine.wait_until_succeeds("dmesg | grep 'stayed whole'")


@pytest.mark.parametrize("place", ["FORWARD", "POST_ROUTING"])
def test_options_that_the_stack_has_read_stay_as_they_are(machine: Machine, place: str) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "IPV4",
        f"inet.{place}",
        """
        local packet = skb:data()
        if packet:getuint8(0) & 15 > 5 then
            print("options", pcall(packet.setstring, packet, 20, "\\1\\1\\1"))
            print("before", pcall(packet.setuint8, packet, 19, packet:getuint8(19)))
        end
        return ACCEPT""",
    )
    # The router writes its address where the option said that there is room.
    assert "10.2.0.1" in machine.succeed("ip netns exec a ping -R -n -c 1 -W 5 10.2.0.2")
    machine.succeed("dmesg | grep 'options.*false.*EOPNOTSUPP'", "dmesg | grep 'before.*true'")


@pytest.mark.parametrize("place", ["PRE_ROUTING", "LOCAL_IN"])
def test_header_keeps_its_length(machine: Machine, place: str) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "INET",
        f"inet.{place}",
        """
        local packet = skb:data()
        if port(skb) == 9999 and packet:getuint8(0) >> 4 == 4 then
            print("longer", pcall(packet.setuint8, packet, 0, 0x4f))
            print("around", pcall(skb:data("mac").setstring, skb:data("mac"), 13, "\\0\\x46"))
            print("as it was", pcall(packet.setstring, packet, 0, "\\x45\\x04"))
        end
        return ACCEPT""",
        namespace="b",
    )
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]
    machine.succeed(
        "dmesg | grep 'longer.*false.*EOPNOTSUPP'",
        "dmesg | grep 'around.*false.*EOPNOTSUPP'",
        "dmesg | grep 'as it was.*true'",
    )


@pytest.mark.parametrize("place", ["PRE_ROUTING", "LOCAL_IN", "FORWARD"])
def test_options_of_hop_by_hop_stay_as_they_are(machine: Machine, place: str) -> None:
    """A socket is given as many of their bytes as they say that they are."""
    wire(machine, ROUTED)
    hook(
        machine,
        "IPV6",
        f"inet.{place}",
        """
        local packet = skb:data()
        if packet:getuint8(6) == 0 then
            print("length", pcall(packet.setuint8, packet, 41, 255))
            print("last", pcall(packet.setstring, packet, 47, "\\1\\1"))
            print("behind", pcall(packet.setuint8, packet, 48, packet:getuint8(48)))
        end
        return ACCEPT""",
    )
    target = "fd02::2" if place == "FORWARD" else "fd01::1"
    packet = IPv6(src="fd01::2", dst=target) / IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])
    replay(machine, packet / UDP(dport=9999) / Raw(b"lab"))
    machine.wait_until_succeeds("dmesg | grep 'behind.*true'")
    machine.succeed(
        "dmesg | grep 'length.*false.*EOPNOTSUPP'", "dmesg | grep 'last.*false.*EOPNOTSUPP'"
    )


@pytest.mark.parametrize("version", [4, 6])
def test_what_follows_a_datagram_is_not_in_its_sum(machine: Machine, version: int) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "INET",
        "inet.PRE_ROUTING",
        """
        local number, start, packet = port(skb)
        if number == 9999 then
            packet:setuint8(start, 88)
            skb:checksum()
            print("rewritten")
        end
        return ACCEPT""",
    )
    header = IP(src="10.1.0.2", dst="10.1.0.1")
    if version == 6:
        header = IPv6(src="fd01::2", dst="fd01::1")
    # Nobody listens: whose sum is good is counted as such all the same.
    replay(machine, header / UDP(dport=9999, len=11) / Raw(b"lab and more"))
    machine.wait_until_succeeds("dmesg | grep rewritten")
    seen = "Udp" if version == 4 else "Udp6"
    machine.wait_until_succeeds(f"nstat -asz {seen}NoPorts | grep '{seen}NoPorts  *1 '")
    machine.succeed(f"nstat -asz {seen}InCsumErrors | grep '{seen}InCsumErrors  *0 '")


def test_packet_that_others_hold_is_not_written(machine: Machine) -> None:
    """pktgen gives a device the same packet again and again."""
    wire(machine, ROUTED)
    hook(
        machine,
        "NETDEV",
        "netdev.INGRESS",
        """
        if port(skb) == 9 then
            local packet = skb:data("mac")
            print("write", pcall(packet.setuint8, packet, 0, 1))
            print("grow", pcall(skb.resize, skb, 3000))
            return DROP
        end
        return ACCEPT""",
        options='dev = "ra"',
    )
    machine.module("pktgen")
    for file, words in (
        ("kpktgend_0", ("rem_device_all", "add_device ra")),
        ("ra", ("xmit_mode netif_receive", "count 3", "dst 10.1.0.1", "udp_dst_min 9")),
        ("ra", ("udp_dst_max 9", "pkt_size 100")),
        ("pgctrl", ("start",)),
    ):
        for word in words:
            machine.succeed(f"echo {word} >/proc/net/pktgen/{file}")
    machine.succeed("dmesg | grep 'write.*false.*EBUSY'", "dmesg | grep 'grow.*false.*EBUSY'")


#: What a device of Ethernet takes: the header, 1500 bytes, and the tag of a VLAN.
GROWS = """
    local mac = skb:data("mac")
    if {asked} then
        local copy = skb:copy()
        copy:resize({before} + 1519)
        print("copy", pcall(copy.forward, copy))
        print("longer", pcall(skb.resize, skb, {before} + 1519))
        print("as long", pcall(skb.resize, skb, {before} + 1518))
    end
    return ACCEPT
"""


@pytest.mark.parametrize(
    ("family", "place", "longer"),
    [
        ("NETDEV", "netdev.EGRESS", "false.EMSGSIZE"),
        ("NETDEV", "netdev.INGRESS", "true"),
        ("ARP", "arp.OUT", "false.EMSGSIZE"),
    ],
)
def test_packet_does_not_outgrow_its_device(
    machine: Machine, family: str, place: str, longer: str
) -> None:
    wire(machine, ROUTED)
    asked = "port(skb) == 9999" if family == "NETDEV" else "true"
    # Where it comes in, its link header is before the length.
    before = "#skb - #mac" if place == "netdev.INGRESS" else "0"
    options = 'dev = "ra"' if family == "NETDEV" else ""
    hook(machine, family, place, GROWS.format(asked=asked, before=before), options=options)
    machine.succeed("ip neighbour flush all")
    if place == "netdev.INGRESS":
        flow(machine, "a", "-", "10.1.0.1", 9999)
    else:
        flow(machine, "-", "a", "10.1.0.2", 9999)
    machine.wait_until_succeeds("dmesg | grep 'as long.true'")
    machine.succeed(f"dmesg | grep 'longer.{longer}'")
    if family == "NETDEV":
        machine.succeed("dmesg | grep 'copy.false.EMSGSIZE'")


@pytest.mark.parametrize("act", ["packet:getuint8(last)", "skb:resize(#skb - 1)"])
def test_way_along_a_list_of_fragments_is_paid_for(machine: Machine, act: str) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "INET",
        "inet.LOCAL_IN",
        f"""
        local packet = skb:data()
        if #packet > 20000 then
            local last = #packet - 1
            for _ = 1, 2000 do {act} end
            print("all for nothing")
        end
        return ACCEPT""",
        options="priority = 0, conntrack = true",
    )
    big = IP(src="10.1.0.2", dst="10.1.0.1", id=7) / UDP(dport=9999) / Raw(bytes(32000))
    replay(machine, *fragment(big, fragsize=32))
    machine.wait_until_succeeds("lunatik list | grep -i budget")
    machine.fail("dmesg | grep 'all for nothing'")


def test_copy_that_grows_while_it_grows_is_paid_for(machine: Machine) -> None:
    """Room for the first time is made by a collection, whose finalizer has it grow, too."""
    wire(machine, ROUTED)
    machine.succeed(
        "cd /sys/module/lunatik/parameters; "
        f"echo {384 << 10} > memory; echo 10000000 > softirq_instructions",
    )
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_IN",
        """
        if port(skb) == 9999 and not done then
            done = true
            local hog, copy, inner = {}, skb:copy(), nil
            collectgarbage("stop")
            setmetatable({}, {__gc = function() inner = pcall(copy.resize, copy, 50000) end})
            pcall(function() while true do hog[#hog + 1] = ("x"):rep(2000) .. #hog end end)
            hog = nil
            print("grown", pcall(copy.resize, copy, 60000), inner, #copy)
        end
        return ACCEPT""",
    )
    flow(machine, "a", "-", "10.1.0.1", 9999)
    machine.wait_until_succeeds("dmesg | grep -P 'grown\ttrue\ttrue\t60000'")
    # A runtime whose account does not come to nothing is a report of the kernel's.
    machine.succeed("lunatik stop hook")
    machine.wait_until_succeeds("rmmod lunatik_netfilter")


def test_copy_outlives_the_callback_and_a_view_does_not(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_IN",
        """
        local ok, why
        if lent then ok, why = pcall(lent.getuint8, lent, 0) end
        local number = port(skb)
        if number then
            if copy then
                assert(copy:data():getstring(28) == "lab")
                assert(view:getstring(28) == "lab")
                assert(not ok and why:find("closed"), why)
                -- The same object: asked for again, it shows this packet.
                assert(lent == skb:data() and lent:getuint8(23) == number & 255)
                print("as it should be")
            end
            copy = skb:copy()
            view, lent = copy:data(), skb:data()
        end
        return ACCEPT""",
    )
    flow(machine, "a", "-", "10.1.0.1", 9999, 9998)
    machine.wait_until_succeeds("dmesg | grep 'as it should be'")
