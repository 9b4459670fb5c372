# SPDX-License-Identifier: GPL-2.0-only
"""Packets of an enemy, packets of three filters, and very many connections."""

from __future__ import annotations

import random

import pytest
from frames import bring, destination_port, mutations
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw
from wiring import LAID, PORT, ROUTED, flow, run, wire

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

JUDGE = """
local lunatik, data = require("lunatik"), require("data")
local netfilter, nf = require("netfilter"), require("linux.nf")
local packet = require("packet")
local verdicts = data.new(%d)
lunatik._ENV.verdicts = verdicts
local seen = 0

local function judge(skb)
    local view = skb:data("net")
    local _, _, port = packet.udp(view)
    if port == 53 then return 1 end
    local _, _, _, port = packet.tcp(view)
    return port == 443 and 2 or 0
end

netfilter.register{
    hook = function(skb)
        if skb:data("mac"):getstring(6, 6) ~= "\\x02\\0\\0\\0\\0\\x99" then
            return nf.action.ACCEPT
        end
        local ok, verdict = pcall(judge, skb)
        verdicts:setuint8(seen, ok and verdict + 48 or 69)
        seen = seen + 1
        return nf.action.ACCEPT
    end,
    pf = nf.proto.NETDEV, hooknum = nf.netdev.INGRESS, dev = "ra",
}
"""


@pytest.mark.slow
@pytest.mark.limit(900)
@pytest.mark.amount(10_000, in_ci=2_000)
def test_mutated_packets_are_judged_as_the_reference_does(machine: Machine, amount: int) -> None:
    wire(machine, ROUTED)
    packets = list(mutations(amount, seed=20))
    bring(machine, packets)
    run(machine, JUDGE % amount)
    # Twice the way through the stack, with what usually looks at it there.
    machine.succeed(
        "nft add table inet t; nft 'add chain inet t c { type filter hook "
        "forward priority 0; }'; nft add rule inet t c ct state invalid counter"
    )
    assert machine.succeed("python3 /tmp/replay.py /tmp/frames a va", timeout=800).split() == [
        str(amount)
    ]
    said = machine.lua("return require('lunatik')._ENV.verdicts:getstring(0)").strip()
    expected = "".join(
        {(17, 53): "1", (6, 443): "2"}.get(destination_port(data) or (0, 0), "0")
        for data in packets
    )
    wrong = [
        (number, packets[number].hex())
        for number, (left, right) in enumerate(zip(said, expected, strict=True))
        if left != right
    ]
    assert not wrong, wrong[:5]
    assert min(expected.count(verdict) for verdict in "012") > amount // 50, "all kinds were there"


#: Does one thing after another to what it gets, and counts for each how often it went well.
SPOIL = (
    PORT
    + """
    local shared = require("lunatik")._ENV
    local seen = 0
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
        copy = function(skb) local copy = skb:copy() copy:resize(900) copy:checksum() end,
        reply = function(skb) skb:reply("no") end,
        reset = function(skb) skb:reset() end,
        unreachable = function(skb) skb:unreachable(seen & 7) end,
    }
    local names = {}
    for name in pairs(acts) do names[#names + 1] = name end
    local function spoil(skb)
        local view = skb:data("net")
        seen = seen + 1
        local name = names[seen % #names + 1]
        if pcall(acts[name], skb, view, #view) then shared[name] = (shared[name] or 0) + 1 end
        return seen & 64 == 0 and ACCEPT or DROP
    end
    netfilter.register{
        hook = function(skb)
            if skb:data("mac"):getstring(6, 6) ~= "\\x02\\0\\0\\0\\0\\x99" then
                return ACCEPT
            end
            -- Above it somebody still has to be there.
            return spoil(skb) == DROP and seen & 32 == 0 and DROP or ACCEPT
        end,
        pf = nf.proto.NETDEV, hooknum = nf.netdev.INGRESS, dev = "ra",
    }
    for _, place in ipairs{"PRE_ROUTING", "FORWARD", "LOCAL_IN"} do
        netfilter.register{hook = spoil, pf = nf.proto.INET, hooknum = nf.inet[place]}
    end
    """
)


@pytest.mark.slow
@pytest.mark.limit(900)
@pytest.mark.amount(10_000, in_ci=2_000)
def test_mutated_packets_are_changed_and_answered(machine: Machine, amount: int) -> None:
    wire(machine, ROUTED)
    bring(machine, list(mutations(amount, seed=21)))
    run(machine, SPOIL)
    machine.succeed("python3 /tmp/replay.py /tmp/frames a va", timeout=800)
    # That nothing splats is the verdict; it counts if all was done often.
    acts = ("write", "checksum", "cut", "grow", "copy", "reply", "reset", "unreachable")
    done = {act: int(machine.lua(f"return require('lunatik')._ENV['{act}'] or 0")) for act in acts}
    assert min(done.values()) > amount // 200, done
    machine.succeed("lunatik stop hook")
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]


NFT = """
add table ip t
add chain ip t f { type filter hook forward priority 0; }
add rule ip t f udp dport 53 drop
add rule ip t f tcp dport 443 tcp flags & syn == syn drop
add rule ip t f ip saddr 10.1.0.2 udp sport 20000-40000 drop
"""

IPTABLES = """*filter
-A FORWARD -p udp --dport 53 -j DROP
-A FORWARD -p tcp --dport 443 --tcp-flags SYN SYN -j DROP
-A FORWARD -s 10.1.0.2 -p udp -m multiport --sports 20000:40000 -j DROP
COMMIT
"""

LUA = """
local netfilter, nf = require("netfilter"), require("linux.nf")
local packet = require("packet")
local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
netfilter.register{
    hook = function(skb)
        local view = skb:data("net")
        local _, from, to = packet.udp(view)
        if from then
            local ours = view:getstring(12, 4) == "\\10\\1\\0\\2"
            return (to == 53 or ours and from >= 20000 and from <= 40000) and DROP or ACCEPT
        end
        local start, _, _, to = packet.tcp(view)
        if to == 443 and view:getuint8(start + 13) & 2 ~= 0 then return DROP end
        return ACCEPT
    end,
    pf = nf.proto.IPV4, hooknum = nf.inet.FORWARD,
}
"""


def traffic(count: int, seed: int) -> list[bytes]:
    """Good packets of IPv4, some of which the rules above drop."""
    draw = random.Random(seed)
    packets = []
    for number in range(count):
        ports = {"sport": draw.randint(1024, 65535), "dport": draw.choice((53, 443, 80, 9999))}
        head = IP(src="10.1.0.2", dst="10.2.0.2", id=number)
        body = draw.choice((UDP(**ports), TCP(**ports, flags=draw.choice(("S", "A", "PA")))))
        packets.append(bytes(head / body / Raw(draw.randbytes(draw.randrange(1000)))))
    return packets


@pytest.mark.limit(300)
def test_four_filters_pass_the_same_packets(machine: Machine, kernel: KernelInfo) -> None:
    wire(machine, ROUTED)
    packets = traffic(400, seed=5)
    bring(machine, packets)
    machine.copy_to(NFT.encode(), "/tmp/nft")
    machine.copy_to(IPTABLES.encode(), "/tmp/iptables")
    # What arrives must not be answered.
    machine.succeed(
        "ip netns exec b nft 'add table ip t; add chain ip t i "
        "{ type filter hook prerouting priority -300; policy drop; }'"
    )
    machine.succeed("ping -c 1 -W 1 10.2.0.2 || true")

    def passed(begin: str = "true", end: str = "true") -> list[str]:
        """How many packets pass, and each of them."""
        machine.succeed(begin)
        out = machine.succeed("python3 /tmp/replay.py /tmp/frames a va b vb 10.1.0.2").split()
        machine.succeed(end)
        return out[1:]

    every = passed()
    assert int(every[0]) == len(packets)
    by_nft = passed("nft -f /tmp/nft", "nft delete table ip t")
    assert len(packets) // 4 < int(by_nft[0]) < len(packets) * 7 // 8
    run(machine, LUA)
    assert passed(end="lunatik stop hook") == by_nft
    kinds = ["nft", *(["legacy"] if kernel.has("IP_NF_FILTER") else [])]
    for kind in kinds:
        restore, flush = f"iptables-{kind}-restore < /tmp/iptables", f"iptables-{kind} -F FORWARD"
        assert passed(restore, flush) == by_nft, kind


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
