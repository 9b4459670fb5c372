# SPDX-License-Identifier: GPL-2.0-only
"""A script's hook and whoever else wants the device: programs, namespaces, the script itself."""

from __future__ import annotations

import pytest
from test_kfunc import PROGRAM
from test_standalone import DROP_ICMP, script
from twins import HERE, XDP, attach, detach, load, run

from lab.testing.bpf import Compiler
from lab.vm.machine import Machine

pytestmark = [pytest.mark.usefixtures("hooks"), pytest.mark.parametrize("mode", XDP)]


def shown(machine: Machine, namespace: str = "") -> str:
    """What rtnetlink says of r0: how it is hooked, and by which script."""
    inside = f"ip netns exec {namespace} " if namespace else ""
    machine.copy_to(HERE / "show_hook.py", "/tmp/show_hook.py")
    return machine.succeed(f"{inside}python3 /tmp/show_hook.py r0").strip()


@pytest.mark.parametrize("theirs", XDP)
def test_program_and_script_keep_each_other_out(
    node: Machine, bpf: Compiler, mode: str, theirs: str
) -> None:
    script(node, DROP_ICMP.format(mode=mode))
    node.module("lunatik_xdp")
    where = load(node, bpf(PROGRAM), "program")
    attach(node, where, "call_lua", mode=theirs)
    refused = node.execute("lunatik run filter softirq")
    assert refused.status == 1
    assert "EEXIST" in refused.stderr or "EBUSY" in refused.stderr
    # It has left nothing that would drop them.
    node.succeed("reach")
    detach(node, mode=theirs)
    node.succeed("lunatik run filter softirq")
    node.fail("reach")
    node.fail(f"bpftool net attach {XDP[theirs]} pinned {where}/progs/call_lua dev r0")
    node.fail("reach")
    node.succeed("lunatik stop filter", "reach")
    attach(node, where, "call_lua", mode=theirs)


def test_script_takes_itself_off(node: Machine, mode: str) -> None:
    run(
        node,
        f"""
        local xdp = require("xdp")
        local action = require("linux.xdp")
        local left = 2
        xdp.attach(function(ctx)
            if ctx:packet():getuint8(23) ~= 1 then return action.PASS end
            left = left - 1
            if left == 0 then xdp.detach() end
            return action.DROP
        end, {{dev = "r0", mode = "{mode}"}})""",
    )
    node.fail("reach")
    node.fail("reach")
    node.wait_until_succeeds("reach")
    # Its runtime goes on, and the device is free for another.
    assert shown(node) == "0 -"
    script(node, DROP_ICMP.format(mode=mode), "other")
    node.succeed("lunatik list | grep filter", "lunatik run other softirq")
    node.fail("reach")


def test_hook_stays_in_its_namespace(node: Machine, mode: str) -> None:
    script(node, DROP_ICMP.format(mode=mode))
    node.succeed("lunatik run filter softirq", "ip netns add elsewhere")
    assert shown(node).endswith("filter")
    node.succeed("ip link set r0 netns elsewhere")
    assert shown(node, "elsewhere") == "0 -"
    node.succeed(
        "ip -n elsewhere addr add 192.0.2.2/24 dev r0; ip -n elsewhere link set r0 up",
        "ip -n elsewhere neigh replace 192.0.2.1 lladdr 02:00:00:00:00:01 dev r0",
    )
    node.wait_until_succeeds("reach")
    # A script of the device's new namespace may have it.
    node.succeed("lunatik stop filter", "ip netns exec elsewhere lunatik run filter softirq")
    node.fail("reach")
