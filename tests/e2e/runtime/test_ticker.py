# SPDX-License-Identifier: GPL-2.0-only
"""The worked example of docs/c-api.md does what the page says."""

from __future__ import annotations

import pytest
from forgets import FORGETS

from lab.vm.machine import Machine

SCRIPT = """
local ticker = require("ticker")
local env = require("lunatik")._ENV
local t
t = ticker.new(10, function(count)
	env.count = count
	{body}
end)
"""

COUNT = 'return require("lunatik")._ENV.count'


def run(machine: Machine, body: str = "") -> None:
    """Run a ticker whose callback ends with a body."""
    script = SCRIPT.replace("{body}", body)
    machine.copy_to(script.encode(), "/lib/modules/lua/tick.lua")
    machine.succeed("lunatik run tick softirq", "sleep 0.3")


def test_ticks_until_it_is_stopped(machine: Machine) -> None:
    run(machine)
    first = int(machine.lua(COUNT))
    machine.succeed("sleep 0.2")
    assert int(machine.lua(COUNT)) > first > 0
    machine.succeed("lunatik stop tick")
    last = machine.lua(COUNT)
    machine.succeed("sleep 0.2")
    assert machine.lua(COUNT) == last


def test_stops_itself_from_its_callback(machine: Machine) -> None:
    run(machine, "if count == 3 then t:stop() end")
    machine.succeed("sleep 0.3")
    assert machine.lua(COUNT) == "3"
    machine.succeed("lunatik stop tick", "rmmod lunatik_ticker")


def test_goes_on_after_errors(machine: Machine) -> None:
    run(machine, "if count % 2 == 0 then error('even') end")
    first = int(machine.lua(COUNT))
    machine.succeed("sleep 0.2")
    assert int(machine.lua(COUNT)) > first > 2
    machine.wait_until_succeeds("dmesg | grep 'tick.lua:.*even'")
    machine.succeed("lunatik stop tick")


def test_broken_one_is_quiet_and_can_be_stopped(machine: Machine) -> None:
    run(machine, "if count == 2 then while true do end end")
    machine.wait_until_succeeds("lunatik list | grep 'tick.*broken: instruction budget exceeded'")
    last = machine.lua(COUNT)
    machine.succeed("sleep 0.2")
    assert machine.lua(COUNT) == last == "2"
    machine.succeed("lunatik stop tick", "rmmod lunatik_ticker")


def test_is_refused_where_it_does_not_belong(machine: Machine) -> None:
    run_in_process = machine.execute("lunatik -e 'require(\"ticker\")'")
    assert "ticker: not available in a process runtime" in run_in_process.stderr


KINDS = {
    "ticker": 'require("ticker").new(10, function() end)',
    "timer": """
        local again
        again = require("timer").new(function() again:start(10) end)
        again:start(10)
        """,
}


def entries(machine: Machine) -> list[int]:
    """How often each CPU's runtime was entered."""
    said = machine.lua(
        """
        local all = {}
        for _, runtime in ipairs(require("lunatik").status()) do
            if runtime.name:find("^tick:") then all[#all + 1] = runtime.entries end
        end
        return table.concat(all, " ")
        """
    )
    return [int(count) for count in said.split()]


@pytest.mark.machine(cpus=2)
@pytest.mark.parametrize("kind", KINDS)
def test_each_cpu_has_its_own(machine: Machine, kind: str) -> None:
    machine.copy_to(KINDS[kind].encode(), "/lib/modules/lua/tick.lua")
    machine.succeed("taskset 1 lunatik run tick softirq percpu", "sleep 0.5")
    counts = entries(machine)
    assert [count > 5 for count in counts] == [True, True], counts


@pytest.mark.machine(cpus=2)
@pytest.mark.parametrize("kind", KINDS)
def test_comes_back_with_its_cpu(machine: Machine, kind: str) -> None:
    machine.copy_to(KINDS[kind].encode(), "/lib/modules/lua/tick.lua")
    online = "/sys/devices/system/cpu/cpu1/online"
    machine.succeed(
        "lunatik run tick softirq percpu", f"echo 0 >{online}", "sleep 0.5", f"echo 1 >{online}"
    )
    before = entries(machine)
    machine.succeed("sleep 1")
    grown = [now - then for now, then in zip(entries(machine), before, strict=True)]
    assert [count > 5 for count in grown] == [True, True], grown
    machine.succeed("lunatik stop tick", f"rmmod lunatik_{kind}")


NEW = {"ticker": "ticker.new(60000, one)", "timer": "timer.new(one)"}


@pytest.mark.parametrize("kind", NEW)
def test_what_there_is_no_memory_for_is_forgotten(machine: Machine, kind: str) -> None:
    """All but the last piece of a hook fits under the cap, again and again."""
    machine.copy_to(
        f"""
        local {kind} = require("{kind}")
        local kept = setmetatable({{}}, {{__mode = "k"}})
        local function try()
            local function one() return kept end
            kept[one] = true
            {NEW[kind]}
        end
        local made, refused = 0, 0
        while refused < 20 do
            if pcall(try) then made = made + 1 else refused = refused + 1 end
        end
        collectgarbage()
        collectgarbage()
        local held = 0
        for _ in pairs(kept) do held = held + 1 end
        assert(made > 0 and held == made, held .. " functions are held for " .. made)
        """.encode(),
        "/lib/modules/lua/many.lua",
    )
    machine.lua('require("lunatik").runtime("many", "softirq", {memory = 400000}):stop()')


def test_what_a_stopped_one_called_is_forgotten(machine: Machine) -> None:
    machine.copy_to(
        (
            FORGETS
            + """
        local ticker = require("ticker")
        forgets(100, function(kept)
            local function one() return kept end
            kept[one] = true
            local t = ticker.new(60000, one)
            t:stop()
            t:stop()
        end)
        """
        ).encode(),
        "/lib/modules/lua/tick.lua",
    )
    machine.succeed("lunatik run tick softirq", "lunatik stop tick")
