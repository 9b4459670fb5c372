# SPDX-License-Identifier: GPL-2.0-only
"""A rule calls the function of a script that was run in its own network namespace."""

from __future__ import annotations

from wiring import ROUTED, flow, run, wire

from lab.vm.machine import Machine

DROPS = """
local nf = require("linux.nf")
require("xtable").target{{
    name = "judge", hooks = 0, proto = 17,
    target = function() print("{name}") return nf.action.DROP end,
}}
"""
RULE = "iptables-legacy -A {chain} -p udp --dport 9999 -j LUA --function judge"


def test_functions_belong_to_their_namespace(machine: Machine) -> None:
    wire(machine, ROUTED)
    run(machine, DROPS.format(name="router"), name="router")
    machine.succeed("ip netns exec b " + RULE.format(chain="INPUT"))
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"], "nobody fills b's"
    # The same name, and no EEXIST.
    run(machine, DROPS.format(name="receiver"), name="receiver", namespace="b")
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["lost"]
    machine.succeed("dmesg | grep receiver", "! dmesg | grep router")
    machine.succeed("lunatik stop receiver", RULE.format(chain="FORWARD"))
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["lost"]
    machine.succeed("dmesg | grep router")
