# SPDX-License-Identifier: GPL-2.0-only
"""What a script answers, and what it knows of a packet's connection."""

from __future__ import annotations

import re

import pytest
from frames import replay
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw
from wiring import (
    BARE,
    BRIDGED,
    LAID,
    PORT,
    REFUSALS,
    ROUTED,
    flow,
    hook,
    refusals,
    run,
    tally,
    wire,
)

from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

BOTH = ("10.2.0.2", "fd02::2")


#: A socket with SO_TIMESTAMP, for which Python has no name.
STAMPED = (
    "import socket, time; here = socket.socket(); here.setsockopt(1, 29, 1); "
    "print('ready', flush=True); time.sleep(600)"
)


#: A datagram to all of a wire, by each kind of address there is for that.
MANY = """
import socket

four, six = (socket.socket(family, socket.SOCK_DGRAM) for family in (2, 10))
four.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
for address in ("224.0.0.1", "255.255.255.255", "10.1.0.255"):
    four.sendto(b"lab", (address, 9999))
six.sendto(b"lab", ("ff02::1%va", 9999))
"""


#: What they send to the router, or to b, under whatever name.
DATAGRAM = UDP(sport=9999, dport=9999) / Raw(b"lab")

#: From the router's subnets, and from itself: of the latter none gets past routing.
FORGED = ("10.1.0.255", "10.2.0.255", "127.0.0.1", "10.1.0.1")

#: Brings a packet in by a device without link headers.
TUNNEL = """
import fcntl, os, struct, subprocess, sys

tun = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tun, 0x400454ca, struct.pack("16sH22x", b"tun7", 0x1001))  # without more headers
for words in ("address add 10.7.0.1/24 dev tun7", "link set tun7 up"):
    subprocess.run(["ip", *words.split()], check=True)
os.write(tun, bytes.fromhex(sys.argv[1]))
"""

MASQUERADE = (
    "nft 'add table ip t; add chain ip t post { type nat hook postrouting priority 100; }; "
    "add rule ip t post oifname rb masquerade'"
)


def send_to_many(machine: Machine) -> None:
    """Datagrams for more than one, and some that say that they come from such or from here."""
    machine.copy_to(MANY.encode(), "/tmp/many.py")
    machine.succeed("ip netns exec a python3 /tmp/many.py")
    replay(machine, *(IP(src=source, dst="10.1.0.1") / DATAGRAM for source in FORGED))


def client(machine: Machine, *words: object) -> str:
    """Run one of the clients of clients.py; what it printed."""
    return machine.succeed(f"python3 /tmp/clients.py {' '.join(map(str, words))}").strip()


@pytest.mark.limit(120)
def test_resets_and_unreachables_reach_the_sender(machine: Machine) -> None:
    wire(machine, ROUTED)
    run(
        machine,
        """
        local netfilter, nf = require("netfilter"), require("linux.nf")
        local packet = require("packet")
        netfilter.register{
            hook = function(skb)
                local view = skb:data()
                local _, _, _, port = packet.tcp(view)
                if port == 8001 then skb:reset() return nf.action.DROP end
                if port == 8002 then skb:unreachable() return nf.action.DROP end
                if port == 8003 then return nf.action.DROP end
                local start, _, port = packet.udp(view)
                if port == 8004 then
                    skb:reply("you said " .. view:getstring(start))
                    return nf.action.DROP
                end
                if port == 8005 then skb:unreachable() return nf.action.DROP end
                return nf.action.ACCEPT
            end,
            pf = nf.proto.INET, hooknum = nf.inet.FORWARD,
        }""",
    )
    # A client is told the same by a reset and by ICMP, by the latter maybe when it asks again.
    tally(machine, "input", namespace="a", **REFUSALS)
    for number, address in enumerate(BOTH, start=1):
        _, before = refusals(machine, namespace="a")
        assert client(machine, "connect", "a", address, 8001) == "ConnectionRefusedError"
        assert refusals(machine, namespace="a") == (number, before)
        assert client(machine, "connect", "a", address, 8002) == "ConnectionRefusedError"
        resets, after = refusals(machine, namespace="a")
        assert resets == number
        assert after > before
        assert client(machine, "connect", "a", address, 8003) == "ETIMEDOUT"
        assert client(machine, "ask", "a", address, 8004, "lab") == "you said lab"
        assert client(machine, "ask", "a", address, 8005, "lab") == "ConnectionRefusedError"
        assert refusals(machine, namespace="a") == (number, after + 1)


def test_answering_everything_comes_to_an_end(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(machine, "INET", "inet.LOCAL_OUT", "skb:reply('no') return DROP", namespace="a")
    assert client(machine, "ask", "a", "10.2.0.2", 9999, "lab") == "no"
    assert client(machine, "ask", "a", "fd02::2", 9999, "lab") == "no"


def test_answers_are_refused_where_there_is_no_way_to_send_them(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "NETDEV",
        "netdev.INGRESS",
        """
        if port(skb) then
            for _, call in ipairs{"reset", "unreachable", "reply"} do
                print(call, pcall(skb[call], skb, call == "reply" and "" or nil))
            end
        end
        return ACCEPT""",
        options='dev = "ra"',
    )
    client(machine, "ask", "a", "10.1.0.1", 9999, "lab")
    for call in ("reset", "unreachable", "reply"):
        machine.wait_until_succeeds(f"dmesg | grep '{call}.*false.*EOPNOTSUPP'")


@pytest.mark.parametrize(("position", "seen"), [("LOCAL_IN", 6), ("PRE_ROUTING", 8)])
def test_datagrams_for_many_have_no_reply(machine: Machine, position: str, seen: int) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "INET",
        f"inet.{position}",
        """
        if port(skb) == 9999 then
            print("reply", pcall(skb.reply, skb, "no"))
            return DROP
        end
        return ACCEPT""",
    )
    send_to_many(machine)
    refused = "dmesg | grep -c 'reply.*false.*EADDRNOTAVAIL'"
    machine.wait_until_succeeds(f"test $({refused}) = {seen}")
    machine.succeed("! dmesg | grep 'reply.*true'")


ECHO = "if port(skb) ~= 9999 then return ACCEPT end skb:reply('here') return DROP"


def test_datagrams_that_claim_to_be_ours_have_no_reply(machine: Machine) -> None:
    """Else the answer would be the next question, without an end."""
    wire(machine, ROUTED)
    hook(machine, "INET", "inet.LOCAL_IN", "if port(skb) then print('asked') end " + ECHO)
    replay(machine, IPv6(src="fd01::1", dst="fd01::1") / DATAGRAM)
    machine.wait_until_succeeds("dmesg | grep 'hook: asked'")
    assert client(machine, "ask", "a", "10.1.0.1", 9999, "lab") == "here"
    assert machine.succeed("dmesg | grep -c 'hook: asked'").strip() == "2"


def test_reply_stays_in_its_vrf(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.module("vrf")
    machine.succeed(
        "ip link add v type vrf table 10",
        "ip link set v up",
        "ip link set ra master v",
        "ip address add fd01::1/64 dev ra nodad",
    )
    hook(machine, "INET", "inet.LOCAL_IN", ECHO)
    for address in ("10.1.0.1", "fd01::1"):
        assert client(machine, "ask", "a", address, 9999, "lab") == "here"
    # Its broadcast addresses stand in its own table, and of others it knows nothing.
    machine.succeed("lunatik stop hook")
    refused = "print('reply', pcall(skb.reply, skb, 'no')) return DROP"
    hook(
        machine,
        "INET",
        "inet.PRE_ROUTING",
        f"if port(skb) == 9999 then {refused} end return ACCEPT",
    )
    send_to_many(machine)
    machine.wait_until_succeeds("dmesg | grep 'reply.*false.*EADDRNOTAVAIL'")
    assert machine.succeed("dmesg | grep -c 'reply.*true'").strip() == "1"


def test_reply_goes_by_the_policies_of_ipsec(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(machine, "INET", "inet.LOCAL_IN", ECHO)
    for here, there in (("10.1.0.1", "10.1.0.2"), ("fd01::1", "fd01::2")):
        policy = f"src {here} dst {there} proto udp sport 9999 dir out"
        assert client(machine, "ask", "a", here, 9999, "lab") == "here"
        machine.succeed(f"ip xfrm policy add {policy} action block")
        assert client(machine, "ask", "a", here, 9999, "lab") == "silence"


def test_reply_leaves_a_new_connection_its_translation(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.succeed(MASQUERADE)
    hook(
        machine,
        "INET",
        "inet.FORWARD",
        "if port(skb) == 8006 then skb:reply('wait') end return ACCEPT",
        options="conntrack = true,",
    )
    # Nobody there refuses the question, which the client would be told first.
    machine.succeed(
        "ip netns exec b nft 'add table ip t; add chain ip t in { type filter hook "
        "input priority 0; policy drop; }'"
    )
    assert client(machine, "ask", "a", "10.2.0.2", 8006, "lab") == "wait"
    machine.succeed("conntrack -L -p udp --orig-port-dst 8006 | grep 'src=10.2.0.2 dst=10.2.0.1 '")


def test_packet_without_a_link_header_is_not_sent_to_a_link(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "INET",
        "inet.POST_ROUTING",
        "if port(skb) == 9999 then print('sent', pcall(skb.forward, skb)) end return ACCEPT",
    )
    machine.copy_to(TUNNEL.encode(), "/tmp/tunnel.py")
    packet = bytes(IP(src="10.7.0.2", dst="10.2.0.2") / DATAGRAM)
    machine.succeed(f"python3 /tmp/tunnel.py {packet.hex()}")
    machine.wait_until_succeeds("dmesg | grep 'sent.*false.*EINVAL'")


def test_connection_of_a_packet(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.succeed(
        "sysctl -qw net.netfilter.nf_conntrack_acct=1",
        MASQUERADE,
    )
    run(
        machine,
        PORT
        + """
        netfilter.register{
            hook = function(skb)
                if port(skb) == 8006 then
                    local id, info, status = skb:conntrack()
                    local hex = function(s)
                        return (s:gsub(".", function(c) return c:byte() .. "." end))
                    end
                    local source, _, protocol, _, number = skb:tuple()
                    print("id", id, hex(source), protocol, number, skb:traffic())
                    local _, translated = skb:tuple("reply")
                    local kinds, bits = {}, {}
                    for _, name in ipairs{"NEW", "ESTABLISHED"} do
                        if nf.ct.info[name] == info then kinds[1] = name end
                    end
                    for _, name in ipairs{"SEEN_REPLY", "CONFIRMED", "SRC_NAT", "DST_NAT"} do
                        if nf.ct.status[name] & status ~= 0 then bits[#bits + 1] = name end
                    end
                    print("info", kinds[1], table.concat(bits, "+"), hex(translated))
                end
                return ACCEPT
            end,
            pf = nf.proto.IPV4, hooknum = nf.inet.POST_ROUTING, priority = 300,
            conntrack = true,
        }""",
    )

    def said(what: str) -> list[list[str]]:
        """The words that the script printed behind this one, for each packet."""
        lines = machine.succeed(f"dmesg | grep 'hook: {what}'").splitlines()
        return [line.split(f"hook: {what}")[1].split() for line in lines]

    # Answered once; the second question meets a connection that has seen a reply.
    assert client(machine, "twice", "a", "b", "10.2.0.2", 8006) == "again"
    machine.wait_until_succeeds("test $(dmesg | grep -c 'hook: info') = 2")
    ident = machine.succeed("conntrack -L -p udp -o id --orig-port-dst 8006").split("id=")[1]
    head = [ident.split()[0], "10.1.0.2.", "17", "8006"]
    assert said("id") == [[*head, "1", "31", "0", "0"], [*head, "2", "64", "1", "30"]]
    assert said("info") == [
        ["NEW", "SRC_NAT", "10.2.0.1."],
        ["ESTABLISHED", "SEEN_REPLY+CONFIRMED+SRC_NAT", "10.2.0.1."],
    ]
    machine.succeed("lunatik stop hook")


def test_timer_comes_back_to_a_packet(machine: Machine) -> None:
    wire(machine, ROUTED)
    run(
        machine,
        PORT
        + """
        local timer = require("timer")
        local seen, cancelled = 0, timer.new(function() print("never") end)
        local soon = timer.new(function() print("seen", seen) end)
        cancelled:start(60000)
        assert(cancelled:cancel() and not cancelled:cancel())
        netfilter.register{
            hook = function(skb)
                if port(skb) == 9999 then
                    seen = seen + 1
                    soon:start(300)
                end
                return ACCEPT
            end,
            pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN,
        }""",
    )
    client(machine, "ask", "a", "10.1.0.1", 9999, "lab")
    machine.wait_until_succeeds("dmesg | grep 'seen.*1'")
    machine.succeed("lunatik stop hook")


def test_packet_inside_a_tunnel_has_no_link_header_to_be_sent_with(machine: Machine) -> None:
    wire(machine, ROUTED)
    # Routed from a into the tunnel: its link header ends up behind the outer one.
    machine.succeed(
        "ip link add tun4 type ipip local 10.2.0.1 remote 10.2.0.2",
        "ip address add 10.4.0.1/24 dev tun4; ip link set tun4 up",
        "ip -n b link add tun4 type ipip local 10.2.0.2 remote 10.2.0.1",
        "ip -n b address add 10.4.0.2/24 dev tun4; ip -n b link set tun4 up",
    )
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_OUT",
        """
        local net, mac = skb:data("net"), skb:data("mac")
        if net:getuint8(9) == 4 then
            print("outer", net:getuint8(0) == mac:getuint8(0) and #net == #mac,
                pcall(skb.forward, skb))
        end
        return ACCEPT""",
    )
    assert flow(machine, "a", "b", "10.4.0.2", 9999) == ["arrived"]
    machine.wait_until_succeeds("dmesg | grep 'outer.*true.*false.*EINVAL'")


def test_a_routed_packet_has_the_header_that_it_came_with(machine: Machine) -> None:
    """Out of its way out that would be a frame from somebody else, to us."""
    wire(machine, ROUTED)
    hook(
        machine,
        "IPV4",
        "inet.POST_ROUTING",
        """
        if port(skb) == 9999 then
            local copy = skb:copy()
            print("routed", pcall(skb.forward, skb), pcall(copy.forward, copy))
        end
        return ACCEPT""",
    )
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]
    machine.wait_until_succeeds("dmesg | grep 'routed.*false.*false.*EINVAL'")


def test_packet_of_a_tunnel_is_answered_and_goes_its_way(machine: Machine) -> None:
    wire(machine, ROUTED)
    # A tunnel of any end: what came is handed on with where it came from, in a route's place.
    machine.succeed(
        "ip link add vx type vxlan external dstport 4789",
        "ip address add 10.4.0.1/24 dev vx; ip link set vx up",
        "ip -n b link add vx type vxlan id 7 dstport 4789 local 10.2.0.2 remote 10.2.0.1",
        "ip -n b address add 10.4.0.2/24 dev vx; ip -n b link set vx up",
    )
    hook(
        machine,
        "IPV4",
        "inet.PRE_ROUTING",
        """
        if port(skb) == 9999 then
            skb:unreachable()
            print("answered")
        end
        return ACCEPT""",
    )
    assert flow(machine, "b", "-", "10.4.0.1", 9999) == ["arrived"]
    machine.succeed("dmesg | grep answered")


def test_replies_in_pieces_can_be_told_apart(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_IN",
        """
        if port(skb) ~= 9999 then return ACCEPT end
        skb:reply(("x"):rep(2000))
        return DROP""",
    )
    machine.succeed(
        "ip netns exec a tcpdump -i va -nv -c 4 'ip[6:2] & 0x3fff != 0' >/tmp/pieces 2>/tmp/ready &"
    )
    machine.wait_until_succeeds("grep listening /tmp/ready")
    for _ in range(2):
        assert client(machine, "ask", "a", "10.1.0.1", 9999, "lab").strip() == "x" * 2000
    machine.wait_until_succeeds("grep '4 packets captured' /tmp/ready")
    numbers = re.findall(r" id (\d+),", machine.succeed("cat /tmp/pieces"))
    assert len(numbers) == 4
    assert len(set(numbers)) == 2
    assert "0" not in numbers


def test_reply_over_ipv6_is_cut_into_pieces(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(
        machine,
        "IPV6",
        "inet.FORWARD",
        """
        if port(skb) ~= 9999 then return ACCEPT end
        skb:reply(("x"):rep(2000))
        return DROP""",
    )
    assert client(machine, "ask", "a", "fd02::2", 9999, "lab").strip() == "x" * 2000
    # The address that was answered for is not told of its packet's size.
    machine.succeed("nstat -asz Icmp6OutPktTooBigs | grep 'Icmp6OutPktTooBigs  *0 '")


@pytest.mark.machine(prepare=BARE)
def test_copy_is_sent_instead_of_its_packet(machine: Machine) -> None:
    wire(machine, BRIDGED)
    # Somebody wants to know when packets came, and fq takes that for when they are to go.
    machine.succeed(
        "tc qdisc replace dev pb root fq",
        f"""python3 -c "{STAMPED}" >/tmp/ready 2>&1 &""",
    )
    machine.wait_until_succeeds("grep ready /tmp/ready")
    run(
        machine,
        PORT
        + """
        local kept
        local later = require("timer").new(function()
            print("later", kept:ifindex(), pcall(kept.forward, kept))
        end)
        netfilter.register{
            hook = function(skb)
                local number, start = port(skb)
                if number ~= 9999 then return ACCEPT end
                kept = skb:copy()
                assert(kept:ifindex() == skb:ifindex())
                assert(not kept:conntrack() and not kept:connmark() and not kept:tuple())
                kept:data():setuint8(start, 88)
                kept:checksum()
                local again = kept:copy()
                again:forward()
                later:start(1)
                return DROP
            end,
            pf = nf.proto.BRIDGE, hooknum = nf.br.FORWARD, priority = nf.br.pri.FILTER_BRIDGED,
        }""",
    )
    assert flow(machine, "a", "b", "10.3.0.3", 9999) == ["mangled:b'Xab'"]
    index = machine.succeed("cat /sys/class/net/pb/ifindex").strip()
    machine.wait_until_succeeds(f"dmesg | grep 'later.*{index}.*false.*callback of its own hook'")
