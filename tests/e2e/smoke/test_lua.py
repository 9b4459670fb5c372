# SPDX-License-Identifier: GPL-2.0-only
"""Lua runs in the kernel: a chunk, a character device, a netfilter hook."""

from __future__ import annotations

from lab.vm.machine import Machine

DEVICE = """
local device = require("device")
local driver = {name = "echo3"}
local kept = ""
function driver:read() return kept end
function driver:write(data) kept = data:rep(3) end
device.new(driver)
"""

HOOK = """
local netfilter = require("netfilter")
local nf = require("linux.nf")
netfilter.register{
    hook = function() return nf.action.DROP end,
    pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN, priority = nf.ip.pri.FILTER,
}
"""


def test_a_chunk_runs_in_the_kernel(machine: Machine) -> None:
    assert machine.lua("return _VERSION, 6 * 7").split() == ["Lua", "5.5", "42"]


def test_module_is_loaded_with_its_types(machine: Machine) -> None:
    machine.succeed("grep -q ^lunatik /proc/modules", "test -e /sys/kernel/btf/lunatik")


def test_a_character_device_in_lua(machine: Machine) -> None:
    machine.copy_to(DEVICE.encode(), "/lib/modules/lua/echo3.lua")
    machine.succeed("lunatik run echo3")
    machine.wait_until_succeeds("test -c /dev/echo3", timeout=5)
    machine.succeed("printf ab > /dev/echo3")
    assert machine.succeed("head -c 6 /dev/echo3") == "ababab"
    machine.succeed("lunatik stop echo3")
    machine.fail("test -e /dev/echo3")


def test_a_netfilter_hook_in_lua_drops(machine: Machine) -> None:
    ping = "ping -c 1 -W 1 127.0.0.1"
    machine.succeed("ip link set lo up", ping)
    machine.copy_to(HOOK.encode(), "/lib/modules/lua/drop.lua")
    machine.succeed("lunatik run drop softirq")
    machine.fail(ping)
    machine.succeed("lunatik stop drop")
    machine.succeed(ping)
