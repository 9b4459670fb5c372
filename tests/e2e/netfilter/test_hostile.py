# SPDX-License-Identifier: GPL-2.0-only
"""Packets of an enemy, and very many connections."""

from __future__ import annotations

import re

import pytest
from counters import counters
from frames import (
    bring,
    bring_frames,
    destination_port,
    framed,
    link_address,
    mutations,
)
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Packet, Raw
from wiring import LAID, PORT, ROUTED, flow, run, tallied, tally, wire

from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

#: How their link addresses begin; the other three bytes say which one it is.
NUMBERED = b"\x02\0\x99"

#: What a script says of a packet; the last is of its own mistakes.
NAME, TLS, OTHER, NONE, UNKNOWN, FAILED = "dtonu!"

JUDGE = """
local lunatik, data = require("lunatik"), require("data")
local netfilter, nf = require("netfilter"), require("linux.nf")
local packet = require("packet")
local verdicts = data.new(%d)
lunatik._ENV.verdicts = verdicts
local seen = 0

local function judge(skb)
    local view = skb:data("net")
    local udp, _, name = packet.udp(view)
    local tcp, _, _, tls = packet.tcp(view)
    if name == 53 then return "d" end
    if tls == 443 then return "t" end
    if udp == false or tcp == false then return "u" end
    return (udp or tcp) and "o" or "n"
end

netfilter.register{
    hook = function(skb)
        if skb:data("mac"):getstring(6, 3) ~= "\\x02\\0\\x99" then
            return nf.action.ACCEPT
        end
        local ok, verdict = pcall(judge, skb)
        verdict = ok and verdict or "!"
        verdicts:setuint8(seen, verdict:byte())
        seen = seen + 1
        local drop = verdict == "d" or verdict == "t" or verdict == "u"
        return drop and nf.action.DROP or nf.action.ACCEPT
    end,
    pf = nf.proto.NETDEV, hooknum = nf.netdev.INGRESS, dev = "ra",
}
"""

#: Behind the script, and not of it: which ones come, and how many bytes of IP.
ARRIVALS = """
table netdev arrivals {
    set came { type ether_addr; size 65535; flags dynamic; }
    counter whole { }
    chain behind {
        type filter hook ingress device "ra" priority 500;
        ether saddr & ff:ff:ff:00:00:00 == 02:00:99:00:00:00 add @came { ether saddr } \\
            counter name whole
    }
}
"""


def kind(data: bytes) -> str:
    """What the reference says of a packet."""
    if unknown(data):
        return UNKNOWN
    found = destination_port(data)
    return {(17, 53): NAME, (6, 443): TLS, None: NONE}.get(found, OTHER)


Part = tuple[int, bytes]
"""Of a datagram's first fragment: which protocol, and what is there of it."""


def unknown(data: bytes) -> bool:
    """Whether nobody can say: too many headers, or fragments that follow have the rest."""
    if data[0] >> 4 == 4 and len(data) >= 20:
        found = _first4(data)
    elif data[0] >> 4 == 6 and len(data) >= 40:
        found = _first6(data)
    else:
        return False
    if isinstance(found, bool):
        return found
    protocol, rest = found
    if protocol == 6:
        return len(rest) < 20 or (rest[12] >> 4) * 4 > len(rest)
    return protocol == 17 and len(rest) < 8


def _first4(data: bytes) -> bool | Part:
    size, fragment = (data[0] & 15) * 4, int.from_bytes(data[6:8], "big")
    if size < 20 or size > len(data) or fragment & 0x1FFF or not fragment & 0x2000:
        return False
    return data[9], data[size:]


def _first6(data: bytes) -> bool | Part:
    protocol, rest, headers, more = data[6], data[40:], 0, False
    while protocol in (0, 43, 44, 60):
        headers += 1
        if headers > 32:
            return True
        if len(rest) < 8:
            return more
        size = 8 if protocol == 44 else 8 + rest[1] * 8
        if protocol == 44:
            fragment = int.from_bytes(rest[2:4], "big")
            if fragment >> 3:
                return False
            more = more or bool(fragment & 1)
        if size > len(rest):
            return more
        protocol, rest = rest[0], rest[size:]
    return more and (protocol, rest)


def deep() -> list[bytes]:
    """As many headers as are looked at, and one more: the port is not looked for."""
    found = []
    for count in (32, 33, 60):
        for last in (UDP(dport=53), TCP(dport=443, flags="PA")):
            packet: Packet = IPv6(src="fd01::2", dst="fd02::2")
            for _ in range(count):
                packet /= IPv6ExtHdrDestOpt()
            found.append(bytes(packet / last / Raw(bytes(64))))
    return found


@pytest.mark.slow
@pytest.mark.limit(900)
@pytest.mark.amount(10_000, in_ci=2_000)
def test_mutated_packets_are_judged_as_the_reference_does(machine: Machine, amount: int) -> None:
    wire(machine, ROUTED)
    packets = deep()
    packets += mutations(amount - len(packets), seed=20)
    frames = framed(packets, link_address(machine, "ra"))
    bring_frames(
        machine,
        (
            frame[:6] + NUMBERED + number.to_bytes(3, "big") + frame[12:]
            for number, frame in enumerate(frames)
        ),
    )
    run(machine, JUDGE % amount)
    machine.succeed(f"nft -f - <<'END'{ARRIVALS}END")
    # Twice the way through the stack, with what usually looks at it there.
    machine.succeed(
        "nft add table inet t; nft 'add chain inet t c { type filter hook "
        "forward priority 0; }'; nft add rule inet t c ct state invalid counter"
    )
    assert machine.succeed("python3 /tmp/replay.py /tmp/frames a va", timeout=800).split() == [
        str(amount)
    ]
    said = machine.lua("return require('lunatik')._ENV.verdicts:getstring(0)").strip()
    expected = "".join(map(kind, packets))
    wrong = [
        (number, left, right, packets[number].hex())
        for number, (left, right) in enumerate(zip(said, expected, strict=True))
        if left != right
    ]
    assert not wrong, wrong[:5]
    assert min(expected.count(kind) for kind in (NAME, TLS, OTHER, NONE)) > amount // 50
    assert expected.count(UNKNOWN) > amount // 500 + 4

    # What was said is what became of them: those and no others, with all their bytes.
    machine.succeed("nft list table netdev arrivals >/tmp/arrivals")
    shown = machine.copy_from("/tmp/arrivals").decode()
    came = {int(mac.replace(":", ""), 16) for mac in re.findall(r"02:00:99:(..:..:..)", shown)}
    passed = {number for number, kind in enumerate(expected) if kind in (OTHER, NONE)}
    assert came - {0} == passed - {0}, sorted(came ^ passed)[:5]
    whole = sum(len(packets[number]) for number in passed)
    assert f"packets {len(passed)} bytes {whole}" in " ".join(shown.split())


#: rb is the port of a bridge, whose addresses go to it, and what goes out there is
#: masqueraded. No neighbour needs to be asked for: that is spoilt like all else.
SPOILT = """set -e
mac() { $1 cat /sys/class/net/$2/address; }
ip -batch - <<END
link add br0 type bridge
link set rb master br0
address flush dev rb
address add 10.2.0.1/24 dev br0
address add fd02::1/64 dev br0 nodad
link set br0 up
END
for pair in a/1/va/ra b/2/vb/br0; do
IFS=/ read -r end number far near <<END
$pair
END
there="ip netns exec $end"
for host in 10.$number.0. fd0$number::; do
ip neighbour replace ${host}2 lladdr $(mac "$there" $far) dev $near
ip -n $end neighbour replace ${host}1 lladdr $(mac "" $near) dev $far
done
done
nft -f - <<END
table inet hide {
    chain behind { type nat hook postrouting priority srcnat; oifname "br0" masquerade; }
}
END
for what in share total; do echo 100 >/sys/module/lunatik/parameters/interrupt_$what; done
"""

ACTS = ("write", "checksum", "cut", "grow", "copy", "connection", "forward", "later")
ANSWERS = ("reply", "reset", "unreachable")

#: Where, and what of these is to have been done there: answers in IP's hooks but for the
#: last, and nothing is forwarded without a link header.
EVERYWHERE = frozenset(("write", "checksum", "cut", "grow", "copy"))
SENT_ON = frozenset(("forward", "later"))
CONNECTED = EVERYWHERE | {"connection"}
PLACES = {
    "ingress": EVERYWHERE | SENT_ON,
    "PRE_ROUTING": CONNECTED | SENT_ON | set(ANSWERS),
    "FORWARD": CONNECTED | SENT_ON | set(ANSWERS),
    "LOCAL_IN": CONNECTED | SENT_ON | set(ANSWERS),
    "LOCAL_OUT": CONNECTED | {"reply", "unreachable"},
    "POST_ROUTING": CONNECTED,
    "bridge_out": EVERYWHERE | SENT_ON,
    "bridge": EVERYWHERE | SENT_ON,
    "egress": EVERYWHERE | SENT_ON,
}

#: Does one thing after another to what it gets at each place, and counts there how often
#: each went well, and how often with a packet that is to be cut into many.
SPOIL = (
    PORT
    + """
    local shared = require("lunatik")._ENV
    local function count(what) shared[what] = (shared[what] or 0) + 1 end
    local function spoiler(place)
        local seen, done, kept = 0, 0, nil
        local acts = {
            write = function(skb, view, size)
                for at = seen % 7, size - 1, 7 do view:setuint8(at, seen & 255) end
                skb:checksum()
            end,
            checksum = function(skb) skb:checksum() end,
            cut = function(skb, _, size)
                skb:resize(size - seen * 7 % 40)
                pcall(skb.checksum, skb)
            end,
            grow = function(skb, view, size)
                skb:resize(size + seen * 7 % 3000)
                skb:data("net"):setuint8(size, 1)
                skb:checksum()
            end,
            copy = function(skb)
                kept = skb:copy()
                local copy = skb:copy()
                copy:resize(900)
                copy:checksum()
            end,
            connection = function(skb)
                assert(skb:conntrack())
                skb:connmark(seen & 255)
                skb:tuple("reply")
            end,
            forward = function(skb) skb:forward() end,
            later = function() kept:forward() kept = nil end,
            reply = function(skb) skb:reply("no") end,
            reset = function(skb) skb:reset() end,
            unreachable = function(skb) skb:unreachable(seen & 7) end,
        }
        local names = {}
        for name in pairs(acts) do names[#names + 1] = name end
        table.sort(names)
        return function(skb)
            local view = skb:data("net")
            local size = #view
            seen = seen + 1
            local name = names[seen % #names + 1]
            local ok = pcall(acts[name], skb, view, size)
            if ok then
                count(place .. "." .. name)
                if size > 1600 then count(place .. ".large") end
            end
            -- Behind it somebody still has to be there.
            return seen // #names % 4 == 0 and DROP or ACCEPT
        end
    end

    local spoil = spoiler("ingress")
    netfilter.register{
        hook = function(skb)
            local foreign = skb:data("mac"):getstring(6, 6) == "\\x02\\0\\0\\0\\0\\x99"
            return (foreign or #skb > 1600) and spoil(skb) or ACCEPT
        end,
        pf = nf.proto.NETDEV, hooknum = nf.netdev.INGRESS, dev = "ra",
    }
    netfilter.register{
        hook = spoiler("egress"),
        pf = nf.proto.NETDEV, hooknum = nf.netdev.EGRESS, dev = "rb",
    }
    for _, place in ipairs{"PRE_ROUTING", "FORWARD", "LOCAL_IN", "LOCAL_OUT", "POST_ROUTING"} do
        netfilter.register{
            hook = spoiler(place), pf = nf.proto.INET, hooknum = nf.inet[place],
            conntrack = true,
        }
    end
    for place, number in pairs{bridge = nf.br.PRE_ROUTING, bridge_out = nf.br.LOCAL_OUT} do
        netfilter.register{hook = spoiler(place), pf = nf.proto.BRIDGE, hooknum = number}
    end
    """
)

#: Answers, as they come to who asked, that nobody gives but the script.
CAME = {
    "no": "udp length 10 @th,64,16 0x6e6f",
    "four": "icmp type destination-unreachable icmp code { 0, 2, 5, 6, 7 }",
    "six": "icmpv6 type destination-unreachable icmpv6 code { 2, 5, 6 }",
}

#: Datagrams of many pages that are to be cut into many, and what comes back for some.
TRAINS = """
import socket, sys
sys.path.insert(0, "/tmp")
from flow import enter

count = int(sys.argv[1])
for sender, address in (
    ("a", "10.2.0.2"), ("a", "fd02::2"), ("-", "10.2.0.2"), ("-", "fd02::2"),
    ("b", "10.2.0.1"), ("b", "fd02::1"), ("a", "10.1.0.1"), ("a", "fd01::1"),
):
    enter(sender)
    here = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    here.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
    for number in range(count):
        try:
            here.sendto(bytes(1 + number * 37 % 9000), (address, 9000 + number % 50))
        except OSError:
            pass  # what came of the last, or what a hook says of this one
"""


def undone(machine: Machine) -> tuple[set[str], dict[str, int]]:
    """What of all that is to be seen has not been, and how often each was."""
    said = machine.lua(
        "local said = {} "
        "require('rcu').map(require('lunatik')._ENV, function(key, value) "
        "if type(value) == 'number' then said[#said + 1] = key .. ' ' .. value end end) "
        "return table.concat(said, '\\n')"
    )
    done = {key: int(value) for key, value in (line.split() for line in said.splitlines())}
    done |= {name: tallied(machine, name, namespace="a") for name in CAME}
    wanted = {f"{place}.{act}" for place, acts in PLACES.items() for act in (*acts, "large")}
    return {what for what in wanted | set(CAME) if not done.get(what)}, done


@pytest.mark.slow
@pytest.mark.limit(900)
@pytest.mark.amount(10_000, in_ci=2_000)
def test_mutated_packets_are_changed_and_answered(machine: Machine, amount: int) -> None:
    wire(machine, ROUTED)
    machine.succeed(SPOILT)
    bring(machine, list(mutations(amount, seed=21)))
    machine.copy_to(TRAINS.encode(), "/tmp/trains.py")
    tally(machine, "prerouting", namespace="a", **CAME)
    run(machine, SPOIL)
    machine.succeed("python3 /tmp/replay.py /tmp/frames a va", timeout=400)
    # That nothing splats is the verdict; it counts if all was done often. Scripts that have
    # used up what they may of a slow host's CPU see less: so again, until they have.
    for _ in range(8):
        machine.succeed(f"python3 /tmp/trains.py {amount // 10}", timeout=200)
        missing, done = undone(machine)
        if not missing:
            break
    assert not missing, (sorted(missing), done)
    for act in (*ACTS, *ANSWERS):
        often = sum(done.get(f"{place}.{act}", 0) for place in PLACES)
        assert often > amount // 50, (act, done)
    assert counters(machine, "hook")["STATE"] == "running"
    machine.succeed("lunatik stop hook")
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]


@pytest.mark.slow
@pytest.mark.limit(5400)
@pytest.mark.amount(100_000, few=2_000)
def test_short_flows(machine: Machine, amount: int) -> None:
    wire(machine, ROUTED)
    machine.succeed(
        "lunatik run examples/sni_block softirq", "lunatik run examples/conntrack_count softirq"
    )
    # 4096 connections are what a small machine keeps, and 120 s what it keeps them for:
    # from the 35th a second on, packets were dropped, by nobody's script.
    machine.succeed("sysctl -qw net.netfilter.nf_conntrack_tcp_timeout_time_wait=3")
    done = machine.succeed(f"python3 /tmp/clients.py flows a b 10.2.0.2 {amount}", timeout=5300)
    assert done.split() == [str(amount), "0"]
    counted = int(machine.lua("return require('lunatik')._ENV.bytes['\\10\\1\\0\\2']"))
    assert counted > amount * 7 * 40, "at least seven segments each"
