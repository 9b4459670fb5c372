# SPDX-License-Identifier: GPL-2.0-only
"""iptables calls functions of scripts, by -m lua and -j LUA."""

from __future__ import annotations

import pytest
from forgets import FORGETS
from wiring import LAID, ROUTED, flow, run, wire

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

SCRIPT = """
local xtable = require("xtable")
local nf = require("linux.nf")
local packet = require("packet")

xtable.match{
    name = "port_is", hooks = 1 << nf.inet.FORWARD | 1 << nf.inet.LOCAL_IN,
    match = function(skb, par, argument)
        local _, _, port = packet.udp(skb:data())
        return port == tonumber(argument)
    end,
    checkentry = function(argument)
        print("asked about", argument)
        return tonumber(argument) ~= nil
    end,
    destroy = function(argument) print("gone is", argument) end,
}

xtable.match{name = "six", family = nf.proto.IPV6, match = function() return true end}

xtable.match{
    name = "writes",
    match = function(skb)
        print("write", pcall(function() skb:data():setuint8(0, 0) end))
        local _, _, port = packet.udp(skb:data())
        if port == 9993 then skb:mark(7) end
        return false
    end,
}

xtable.match{
    name = "hotdrop",
    match = function(skb, par)
        local _, _, port = packet.udp(skb:data())
        par.hotdrop = port == 9995
    end,
}

xtable.target{
    name = "judge", proto = packet.UDP,
    target = function(skb, par, argument)
        assert(par.hooknum == nf.inet.FORWARD)
        local _, _, port = packet.udp(skb:data())
        if port == 9997 then return nf.action.DROP end
        if port == 9996 then return 77 end
    end,
}
"""


@pytest.mark.limit(120)
@pytest.mark.parametrize("path", ["legacy", "nft"])
def test_rules_call_functions(machine: Machine, kernel: KernelInfo, path: str) -> None:
    if path == "legacy" and not kernel.has("IP_NF_FILTER"):
        pytest.skip("this kernel has no legacy tables")
    wire(machine, ROUTED)
    for family, address in (("iptables", "10.2.0.2"), ("ip6tables", "fd02::2")):
        tables = f"{family}-{path}"
        run(machine, SCRIPT, name="rules")
        machine.succeed(
            f"{tables} -A FORWARD -m lua --function writes",
            f"{tables} -A FORWARD -m mark --mark 7 -j DROP",
            f"{tables} -A FORWARD -m lua --function hotdrop",
            f"{tables} -A FORWARD -m lua --function 'none such'",
            f"{tables} -A FORWARD -m lua --function port_is --argument 9999 -j DROP",
            f"{tables} -A FORWARD -p udp --dport 9994 -m lua --function six -j DROP",
            f"{tables} -A FORWARD -j LUA --function judge",
            f"{tables} -A INPUT -p udp -m lua ! --function port_is --argument 9998 -j DROP",
        )
        saved = machine.succeed(f"{tables}-save")
        assert "-m lua --function port_is --argument 9999 -j DROP" in saved
        assert "-m lua ! --function port_is --argument 9998 -j DROP" in saved
        assert "-j LUA --function judge" in saved
        assert '-m lua --function "none such"' in saved
        machine.fail(f"{tables} -A FORWARD -m lua --function port_is --argument none")
        machine.fail(f"{tables} -A FORWARD -m lua --argument 1")
        fates = flow(machine, "a", "b", address, 9999, 9998, 9997, 9996, 9995, 9993)
        assert fates == ["lost", "arrived", "lost", "arrived", "lost", "lost"]
        fate = "arrived" if family == "iptables" else "lost"
        assert flow(machine, "a", "b", address, 9994) == [fate], "a function of one family"
        near = "10.1.0.1" if family == "iptables" else "fd01::1"
        assert flow(machine, "a", "-", near, 9999, 9998) == ["lost", "arrived"], "inverted"
        machine.succeed("dmesg | grep 'write.*false.*read only'")

        # Rules outlive the script, and find it again.
        machine.succeed("lunatik stop rules")
        assert flow(machine, "a", "b", address, 9999, 9997) == ["arrived", "arrived"]
        assert flow(machine, "a", "-", near, 9999) == ["arrived"], "nobody to invert"
        machine.succeed(f"{tables}-save | {tables}-restore")
        run(machine, SCRIPT, name="rules")
        assert flow(machine, "a", "b", address, 9999, 9997) == ["lost", "lost"]
        machine.succeed("dmesg -C", f"{tables} -F")
        for argument in (9999, 9998):
            machine.wait_until_succeeds(f"dmesg | grep 'gone is.*{argument}'")
        machine.succeed("lunatik stop rules", "dmesg -C")


def test_name_is_taken_once(machine: Machine) -> None:
    machine.copy_to(SCRIPT.encode(), "/lib/modules/lua/one.lua")
    machine.copy_to(SCRIPT.encode(), "/lib/modules/lua/two.lua")
    machine.succeed("lunatik run one softirq")
    done = machine.execute("lunatik run two softirq")
    assert done.status == 1
    assert "EEXIST" in done.stderr
    machine.succeed("lunatik stop one", "lunatik run two softirq")


@pytest.mark.machine(cpus=2)
def test_names_are_not_for_each_cpu(machine: Machine) -> None:
    machine.copy_to(SCRIPT.encode(), "/lib/modules/lua/rules.lua")
    done = machine.execute("lunatik run rules softirq percpu")
    assert done.status == 1
    assert "EEXIST" in done.stderr
    assert machine.succeed("lunatik list") == "", "the first is gone as well"
    machine.succeed("lunatik run rules softirq")


def test_what_is_refused_is_forgotten(machine: Machine) -> None:
    run(
        machine,
        FORGETS
        + """
        local xtable = require("xtable")
        local function try(kept, wanted, field)
            local function one() return kept end
            local function two() return kept end
            kept[one], kept[two] = true, true
            local ok, why = pcall(xtable.match, {
                name = "taken", match = one, checkentry = two, destroy = field,
            })
            assert(not ok and tostring(why):find(wanted), why)
        end
        xtable.match{name = "taken", match = function() end}
        forgets(100, function(kept)
            try(kept, "EEXIST")
            try(kept, "function expected", 1)
        end)
        """,
        name="rules",
    )


def test_refusal_tells_the_place(machine: Machine) -> None:
    run(
        machine,
        """
        local xtable = require("xtable")
        local ok, why = pcall(function()
            xtable.match{name = "odd", match = 1}
        end)
        assert(not ok and why:find("^%g+:%d+: bad field 'match'"), why)
        """,
        name="rules",
    )


def test_dead_script_does_not_hold_its_table(machine: Machine, kernel: KernelInfo) -> None:
    if not kernel.has("IP_NF_FILTER"):
        pytest.skip("this kernel has no legacy tables")
    wire(machine, ROUTED)
    run(
        machine,
        """
        require("xtable").match{
            name = "stuck", proto = 17,
            match = function() while true do end end,
            checkentry = function(argument) return argument == "good" end,
        }
        """,
        name="rules",
    )
    rule = "iptables-legacy -A FORWARD -m lua --function stuck --argument"
    machine.succeed(f"{rule} good")
    machine.fail(f"{rule} bad")
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]
    machine.wait_until_succeeds("lunatik list | grep -i budget")
    # Any change makes all rules of a table anew.
    machine.succeed("iptables-legacy -A FORWARD -p udp -j DROP")
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["lost"]


def test_answers_do_not_lead_a_packet_past_its_rules(machine: Machine, kernel: KernelInfo) -> None:
    if not kernel.has("IP_NF_FILTER"):
        pytest.skip("this kernel has no legacy tables")
    wire(machine, ROUTED)
    run(
        machine,
        """
        local xtable = require("xtable")
        local function answer(skb) skb:reply("no") end
        xtable.match{name = "answer", match = answer}
        xtable.target{name = "answer", target = answer}
        """,
        name="rules",
    )
    for family, address in (("iptables", "10.2.0.2"), ("ip6tables", "fd02::2")):
        tables = f"{family}-legacy"
        # The answer goes through chains of the same table, and comes back from them.
        machine.succeed(
            f"{tables} -N elsewhere; {tables} -A OUTPUT -j elsewhere; {tables} -N ask",
            f"{tables} -A ask -p udp --dport 9999 -m lua --function answer -j ACCEPT",
            f"{tables} -A ask -p udp --dport 9998 -j LUA --function answer",
            f"{tables} -A FORWARD -p udp -j ask",
            f"{tables} -A FORWARD -p udp --dport 9998:9999 -j DROP",
        )
        for port in (9999, 9998):
            told = machine.succeed(f"python3 /tmp/clients.py ask a {address} {port} lab")
            assert told.strip() == "no"
        assert flow(machine, "a", "b", address, 9999, 9998, 9997) == ["lost", "lost", "arrived"]
        machine.succeed(f"{tables} -F")
