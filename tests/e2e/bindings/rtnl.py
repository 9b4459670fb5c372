# SPDX-License-Identifier: GPL-2.0-only
"""Scripts that are started where RTNL is held, and all the kernel waits for that."""

from __future__ import annotations

from lab.vm.machine import Machine

OUTER = b"""
local lunatik = require("lunatik")
require("notifier").netdevice(function(event, name)
    if name == "dummy7" then print(pcall(lunatik.runtime, "inner", "softirq")) end
end)
"""


def start_under_rtnl(machine: Machine, inner: str, *modules: str) -> None:
    """Start a softirq script from a notifier's callback; what it requires is loaded before."""
    for module in (*modules, "lunatik_constants"):
        machine.module(module)  # there it is found, not loaded
    machine.copy_to(inner.encode(), "/lib/modules/lua/inner.lua")
    machine.copy_to(OUTER, "/lib/modules/lua/outer.lua")
    machine.succeed("lunatik run outer")
    machine.succeed("ip link add dummy7 type dummy", timeout=10)
