# SPDX-License-Identifier: GPL-2.0-only
"""What a script answers, and what it knows of a packet's connection."""

from __future__ import annotations

import pytest
from wiring import PORT, ROUTED, hook, run, wire

from lab.vm.machine import Machine

BOTH = ("10.2.0.2", "fd02::2")


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
    for address in BOTH:
        assert client(machine, "connect", "a", address, 8001) == "ConnectionRefusedError"
        assert client(machine, "connect", "a", address, 8002) == "ConnectionRefusedError"
        assert client(machine, "connect", "a", address, 8003) == "ETIMEDOUT"
        assert client(machine, "ask", "a", address, 8004, "lab") == "you said lab"
        assert client(machine, "ask", "a", address, 8005, "lab") == "ConnectionRefusedError"


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


def test_connection_of_a_packet(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.succeed(
        "sysctl -qw net.netfilter.nf_conntrack_acct=1",
        "nft 'add table ip t; add chain ip t post { type nat hook postrouting priority 100; }; "
        "add rule ip t post oifname rb masquerade'",
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
                    print("info", info, status, hex(translated))
                end
                return ACCEPT
            end,
            pf = nf.proto.IPV4, hooknum = nf.inet.POST_ROUTING, priority = 300,
            conntrack = true,
        }""",
    )
    client(machine, "ask", "a", "10.2.0.2", 8006, "lab")
    machine.wait_until_succeeds("dmesg | grep 'info'")
    said = machine.succeed("dmesg | grep 'hook: id' | tail -1").split("hook: id")[1].split()
    ident = machine.succeed("conntrack -L -p udp -o id --orig-port-dst 8006").split("id=")[1]
    assert said[0] == ident.split()[0], "conntrack -L says so"
    assert said[1:] == ["10.1.0.2.", "17", "8006", "1", "31", "0", "0"]
    assert "10.2.0.1." in machine.succeed("dmesg | grep 'hook: info'"), "translated"
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
