# SPDX-License-Identifier: GPL-2.0-only
"""Packets of an enemy, and very many connections."""

from __future__ import annotations

import re

import pytest
from frames import (
    bring,
    bring_frames,
    destination_port,
    framed,
    link_address,
    mutations,
)
from wiring import LAID, PORT, ROUTED, flow, run, wire

from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

#: How their link addresses begin; the other three bytes say which one it is.
NUMBERED = b"\x02\0\x99"

#: What a script says of a packet; the last is of its own mistakes.
NAME, TLS, OTHER, NONE, FAILED = "dton!"

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
        return (verdict == "d" or verdict == "t") and nf.action.DROP or nf.action.ACCEPT
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
    found = destination_port(data)
    return {(17, 53): NAME, (6, 443): TLS, None: NONE}.get(found, OTHER)


@pytest.mark.slow
@pytest.mark.limit(900)
@pytest.mark.amount(10_000, in_ci=2_000)
def test_mutated_packets_are_judged_as_the_reference_does(machine: Machine, amount: int) -> None:
    wire(machine, ROUTED)
    packets = list(mutations(amount, seed=20))
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

    # What was said is what became of them: those and no others, with all their bytes.
    machine.succeed("nft list table netdev arrivals >/tmp/arrivals")
    shown = machine.copy_from("/tmp/arrivals").decode()
    came = {int(mac.replace(":", ""), 16) for mac in re.findall(r"02:00:99:(..:..:..)", shown)}
    passed = {number for number, kind in enumerate(expected) if kind in (OTHER, NONE)}
    assert came - {0} == passed - {0}, sorted(came ^ passed)[:5]
    whole = sum(len(packets[number]) for number in passed)
    assert f"packets {len(passed)} bytes {whole}" in " ".join(shown.split())


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
