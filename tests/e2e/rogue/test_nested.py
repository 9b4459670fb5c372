# SPDX-License-Identifier: GPL-2.0-only
"""Scripts that call one another share the stack of the interrupt that they are in."""

from __future__ import annotations

import pytest

from lab.vm.machine import Machine

#: Down to the end of the stack, and on in the next script from there.
DOWN = """
local env = require("lunatik")._ENV
local function down()
    if not pcall(down) then
        env.end_of_{name} = true
        {then_}
    end
end
"""

HOOK = """
local netfilter, nf = require("netfilter"), require("linux.nf")
local gone = false
netfilter.register{
    hook = function()
        if not gone then gone = true down() end
        return nf.action.ACCEPT
    end,
    pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN,
}
"""

FIRST = """
local lunatik = require("lunatik")
local env = lunatik._ENV
for _, name in ipairs{"d", "c", "b", "a"} do
    env["runtime_" .. name] = lunatik.runtime(name, "softirq")
end
"""


def test_nested_scripts_leave_the_interrupt_its_stack(machine: Machine) -> None:
    followers = {"a": "b", "b": "c", "c": "d", "d": None}
    for name, follower in followers.items():
        # Where it does not fit any more, one is tried that is not so deep.
        then = f"env.runtime_{follower}:resume()"
        script = DOWN.format(name=name, then_=then if follower else "")
        script += HOOK if name == "a" else "return down\n"
        machine.copy_to(script.encode(), f"/lib/modules/lua/{name}.lua")
    machine.copy_to(FIRST.encode(), "/lib/modules/lua/first.lua")
    machine.succeed("lunatik run first", "ping -c 1 -W 5 127.0.0.1")
    assert machine.lua('return require("lunatik")._ENV.end_of_a') == "true"
    assert "broken" not in machine.succeed("lunatik list")


#: What one entry of either script may take, at most.
BUDGET = 100_000

#: Takes more than half of that for each call.
WORKER = b"return function() for _ = 1, 60000 do end end"

#: Has the worker work for many entries in one of its own.
BOSS = {
    "softirq": """
        local netfilter, nf = require("netfilter"), require("linux.nf")
        netfilter.register{
            hook = function()
                for _ = 1, 1000 do worker:resume() end
                return nf.action.ACCEPT
            end,
            pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN,
        }
    """,
    "process": """
        require("notifier").netdevice(function(event, name)
            if name == "dummy7" then for _ = 1, 1000 do worker:resume() end end
        end)
    """,
}
BEGIN = {"softirq": "ping -c 1 -W 5 127.0.0.1", "process": "ip link add dummy7 type dummy"}

USED = """
local used = {}
for _, runtime in ipairs(require("lunatik").status()) do
    used[runtime.name] = runtime.instructions
end
return used.worker
"""


@pytest.mark.parametrize("context", BOSS)
def test_what_it_calls_counts_where_somebody_waits(machine: Machine, context: str) -> None:
    """A packet, or whoever has the RTNL: not for as many budgets as there are calls."""
    boss = "local worker = require('lunatik')._ENV.worker\n" + BOSS[context]
    machine.copy_to(boss.encode(), "/lib/modules/lua/boss.lua")
    machine.copy_to(WORKER, "/lib/modules/lua/worker.lua")
    make = f'lunatik.runtime("worker", "{context}", {{instructions = {BUDGET}}})'
    machine.lua(f'local lunatik = require("lunatik") lunatik._ENV.worker = {make}')
    machine.succeed(
        f"echo {BUDGET} >/sys/module/lunatik/parameters/{context}_instructions",
        f"lunatik run boss {context}",
    )
    before = int(machine.lua(USED))
    machine.succeed(BEGIN[context])
    assert "broken: instruction budget exceeded" in machine.succeed("lunatik list")
    assert int(machine.lua(USED)) - before <= 20 * BUDGET
