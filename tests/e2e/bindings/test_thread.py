# SPDX-License-Identifier: GPL-2.0-only
"""thread: kernel threads that run scripts, and end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.vm.errors import CommandFailed
from lab.vm.machine import Machine

LOOP = """
local thread, linux = require("thread"), require("linux")
return function()
    print("task " .. thread.current():task().command)
    while not thread.shouldstop() do linux.schedule(20) end
    print("saw the end")
end
"""


def test_runs_as_a_task_and_stops_when_told(machine: Machine, other: Callable[[str], None]) -> None:
    other(LOOP)
    machine.succeed("lunatik spawn other")
    machine.wait_until_succeeds("dmesg | grep 'task other'")
    machine.succeed("ps -eo comm | grep -x other", "lunatik stop other")
    machine.wait_until_succeeds("dmesg | grep 'saw the end'")
    machine.fail("ps -eo comm | grep -x other")


@pytest.mark.parametrize(
    "body",
    [
        "while true do end",
        "while true do linux.schedule(10) end",
        "linux.schedule()",
        "repeat pcall(error) until false",
    ],
)
def test_that_never_looks_up_is_stopped_all_the_same(
    machine: Machine, other: Callable[[str], None], body: str
) -> None:
    other(f'local linux = require("linux") return function() {body} end')
    machine.succeed("lunatik spawn other")
    machine.succeed("lunatik stop other", timeout=30)
    machine.wait_until_succeeds("! ps -eo comm | grep -x other", timeout=15)
    machine.succeed("lunatik unload", timeout=30)


def test_task_says_who_it_is(check: Callable[[str], str], other: Callable[[str], None]) -> None:
    other(LOOP)
    check(
        """
        local thread, lunatik = require("thread"), require("lunatik")
        local runtime = lunatik.runtime("other")
        local t = thread.run(runtime, "a%s%n%p")
        local task = t:task()
        assert(task.command == "a%s%n%p" and task.pid > 1 and task.cpu >= 0)
        assert(task.tgid == task.pid)
        t:stop() t:stop()
        runtime:stop()
        assert(thread.shouldstop() == false)
        """
    )


def test_wrong_arguments(check: Callable[[str], str], other: Callable[[str], None]) -> None:
    other("return print")
    check(
        """
        local thread, lunatik = require("thread"), require("lunatik")
        raises("runtime expected", thread.run, require("data").new(8), "x")
        raises("runtime expected", thread.run)
        local soft = lunatik.runtime("other", "softirq")
        raises("not a process runtime", thread.run, soft, "x")
        raises("string expected", thread.run, soft)
        soft:stop()
        local other = lunatik.runtime("other")
        raises("name too long", thread.run, other, ("x"):rep(128))
        thread.run(other, ("x"):rep(127)):stop()
        other:stop()
        raises("EPERM", function() thread.current():stop() end)
        """
    )


def test_refused_in_an_interrupt_runtime(machine: Machine, other: Callable[[str], None]) -> None:
    other('require("thread")')
    with pytest.raises(CommandFailed, match="not available in a softirq runtime"):
        machine.succeed("lunatik run other softirq")


def test_threads_are_paid_for(machine: Machine) -> None:
    machine.copy_to(
        b"local c = require('completion').new() return function() c:wait() end",
        "/lib/modules/lua/waits.lua",
    )
    made = machine.lua(
        """
        local lunatik, thread = require("lunatik"), require("thread")
        local waits = lunatik.runtime("waits")
        for number = 1, 2000 do
            local ok, why = pcall(thread.run, waits, "many")
            if not ok then
                waits:stop()
                assert(why:find("not enough memory"), why)
                return number
            end
        end
        """,
        timeout=60,
    )
    assert 10 < int(made) < 1000
    machine.wait_until_succeeds("! grep -q many /proc/[0-9]*/comm")


def test_the_task_of_an_ended_thread_is_paid_for(
    check: Callable[[str], str], other: Callable[[str], None]
) -> None:
    """As long as an object refers to it; so is that of a user's process."""
    other("return function() end")
    check(
        """
        local thread, lunatik, linux = require("thread"), require("lunatik"), require("linux")
        local function held()
            collectgarbage() collectgarbage()
            for _, each in ipairs(lunatik.status()) do
                if each.session then return each.memory end
            end
        end
        local quick = lunatik.runtime("other")
        local kept, before = {}, held()
        for number = 1, 20 do
            kept[number] = thread.run(quick, "quick")
            kept[number]:stop()
        end
        assert(held() - before > 20 * 2000, "ended threads are free")
        kept = {}
        for _ = 1, 100 do -- what ends them may not have let go
            if held() - before < 20 * 1000 then break end
            linux.schedule(20)
        end
        assert(held() - before < 20 * 1000, "what is gone is paid for")
        for number = 1, 20 do kept[number] = thread.current() end
        assert(held() - before > 20 * 2000, "tasks are free")
        """
    )


def test_threads_that_are_garbage_make_room(
    check: Callable[[str], str], other: Callable[[str], None]
) -> None:
    """Lua cannot know how large what it forgets is."""
    other("return function() end")
    check(
        """
        collectgarbage("stop")
        local thread, lunatik = require("thread"), require("lunatik")
        local quick, ballast = lunatik.runtime("other"), {}
        for number = 1, 6 do ballast[number] = require("data").new(1 << 20) end
        for _ = 1, 700 do thread.run(quick, "quick"):stop() end
        for _ = 1, 1000 do thread.current() end
        """
    )
