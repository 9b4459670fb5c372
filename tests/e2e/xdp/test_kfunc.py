# SPDX-License-Identifier: GPL-2.0-only
"""An XDP program in eBPF asks a Lua script; any kernel will do."""

from __future__ import annotations

from pathlib import Path

import pytest
from counters import counters
from forgets import FORGETS
from twins import MOUNT_BPFFS

from lab.testing.bpf import Compiler
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

PROGRAM = Path(__file__).with_name("call_lua.bpf.c")

UNCHECKED = Path(__file__).with_name("unchecked.bpf.c")

VERDICT = """
local xdp = require("xdp")
local action = require("linux.xdp")
xdp.attach(function(packet, argument)
    local length = argument:getuint32(0)
    if length ~= #packet then error("lengths differ") end
    argument:setuint32(4, length + 1)
    return packet:getuint8(23) == 1 and action.DROP or action.PASS
end)
"""


@pytest.fixture
def asking(node: Machine, bpf: Compiler) -> Machine:
    """A machine whose r0 runs the program."""
    node.copy_to(bpf(PROGRAM), "/tmp/call_lua.bpf.o")
    node.module("lunatik_xdp")
    node.succeed(
        MOUNT_BPFFS,
        "bpftool prog load /tmp/call_lua.bpf.o /sys/fs/bpf/call_lua",
        "bpftool net attach xdp pinned /sys/fs/bpf/call_lua dev r0",
    )
    return node


def test_module_has_type_information(machine: Machine) -> None:
    # Without it the kfunc is not registered, and nobody says so. The library of
    # XDP's constants is another module's, and must not stand in its way.
    machine.module("lunatik_constants")
    machine.module("lunatik_xdp")
    machine.succeed("test -s /sys/kernel/btf/lunatik_xdp")


@pytest.mark.parametrize("percpu", ["", " percpu"])
def test_script_decides_and_answers(asking: Machine, percpu: str) -> None:
    asking.succeed("reach")
    asking.copy_to(VERDICT.encode(), "/lib/modules/lua/verdict.lua")
    asking.succeed(f"lunatik run verdict softirq{percpu}")
    asking.fail("reach")
    asking.succeed("lunatik stop verdict", "reach")


def test_what_is_detached_is_forgotten(node: Machine) -> None:
    node.module("lunatik_xdp")
    node.copy_to(
        (
            FORGETS
            + """
        local xdp = require("xdp")
        forgets(100, function(kept)
            local function one() return kept end
            kept[one] = true
            xdp.attach(one)
            xdp.detach()
            xdp.detach()
        end)
        """
        ).encode(),
        "/lib/modules/lua/verdict.lua",
    )
    node.succeed("lunatik run verdict softirq", "lunatik stop verdict")


@pytest.mark.parametrize("what", ["KEY", "ARGUMENT"])
def test_what_was_not_found_is_no_key_and_no_argument(
    node: Machine, bpf: Compiler, what: str
) -> None:
    node.copy_to(bpf(UNCHECKED, f"-D{what}"), "/tmp/unchecked.bpf.o")
    node.copy_to(
        b'require("xdp").attach(function(_, argument) return #argument > 0 and 2 or 1 end)',
        "/lib/modules/lua/verdict.lua",
    )
    node.succeed(
        "lunatik run verdict softirq",
        MOUNT_BPFFS,
    )
    loaded = node.execute("bpftool prog load /tmp/unchecked.bpf.o /sys/fs/bpf/unchecked")
    if loaded.status != 0:
        assert "Possibly NULL pointer" in loaded.stderr
        return
    node.succeed("bpftool net attach xdp pinned /sys/fs/bpf/unchecked dev r0")
    node.fail("reach")
    node.succeed("bpftool net detach xdp dev r0", "reach")


def test_script_decides_in_generic_mode(asking: Machine) -> None:
    asking.succeed(
        "bpftool net detach xdp dev r0",
        "bpftool net attach xdpgeneric pinned /sys/fs/bpf/call_lua dev r0",
    )
    asking.copy_to(VERDICT.encode(), "/lib/modules/lua/verdict.lua")
    asking.succeed("reach", "lunatik run verdict softirq")
    asking.fail("reach")
    asking.succeed("lunatik stop verdict", "reach")


def test_key_of_the_same_length_is_another_script(asking: Machine) -> None:
    asking.copy_to(VERDICT.encode(), "/lib/modules/lua/vardict.lua")
    asking.succeed("lunatik run vardict softirq", "reach")


def test_kernel_without_hooks_says_so(node: Machine, kernel: KernelInfo) -> None:
    if kernel.has("XDP_LUA"):
        pytest.skip("this kernel has hooks for XDP: lab test --patches none")
    node.copy_to(
        b'require("xdp").attach(function() return 1 end, {dev = "r0\\nforged: yes"})',
        "/lib/modules/lua/filter.lua",
    )
    refused = node.execute("lunatik run filter softirq")
    assert refused.status == 1
    assert "EOPNOTSUPP" in refused.stderr
    node.succeed("dmesg | grep 'filter: this kernel.*CONFIG_XDP_LUA'")
    node.succeed("! dmesg | grep forged", "reach", "! lunatik list | grep filter")


#: What a script does that gives no answer, what the log says of it, whether that is its end.
FAILING = {
    "error": ('error("rotten")', "rotten", False),
    "nothing": ("", "returned no", False),
    "negative": ("return -1", "returned no", False),
    "large": ("return 1 << 31", "returned no", False),
    "memory": ("return #('x'):rep(1 << 20)", "not enough memory", False),
    "budget": ("while true do end", "instruction budget exceeded", True),
}


@pytest.mark.parametrize("failure", FAILING)
def test_failing_script_gives_the_program_its_way(asking: Machine, failure: str) -> None:
    body, said, dies = FAILING[failure]
    # So little that asking for more of it costs less than the budget.
    asking.succeed("echo 1048576 > /sys/module/lunatik/parameters/memory")
    asking.copy_to(
        f"""
        local xdp = require("xdp")
        xdp.attach(function(packet, argument)
            if #packet ~= 98 then
                argument:setuint32(4, argument:getuint32(0) + 1)
                return xdp.failures() >= 5 and 1 or 2
            end
            {body}
        end)
        """.encode(),
        "/lib/modules/lua/verdict.lua",
    )
    ping = "ip netns exec client ping -q -W 1 192.0.2.2"
    asking.succeed("lunatik run verdict softirq", f"{ping} -c 1 -s 100")
    asking.succeed(f"{ping} -c 5 -i 0.1", timeout=30)
    if dies:
        # Nobody is asked any more, so the program has its way with all of it.
        asking.succeed(f"{ping} -c 1 -s 100", "lunatik list | grep 'verdict.*broken'")
    else:
        asking.fail(f"{ping} -c 1 -s 100")
        assert counters(asking, "verdict")["ERRORS"] == "5"
    assert asking.succeed("dmesg").count(said) == 1
