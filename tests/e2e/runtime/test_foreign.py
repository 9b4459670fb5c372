# SPDX-License-Identifier: GPL-2.0-only
"""Whoever only calls a script, or is called by one, neither ends it nor waits for it."""

from __future__ import annotations

import itertools

import pytest

from lab.vm.machine import Machine


def run(machine: Machine, name: str, text: str) -> None:
    """Run a script of that text in a process runtime."""
    machine.copy_to(text.encode(), f"/lib/modules/lua/{name}.lua")
    machine.succeed(f"lunatik run {name}")


PRINTS = """
device = require("device").new{
    name = "chatty",
    read = function() print("not the session's") return "" end,
}
"""


def test_what_a_callback_prints_is_not_its_sessions(machine: Machine) -> None:
    """The output is the reader's, who does not hold the runtime's lock."""
    machine.copy_to(PRINTS.encode(), "/tmp/chunk")
    said = machine.succeed(
        "exec 3<>/dev/lunatik; cat /tmp/chunk >&3; cat <&3; cat <&3;"
        "cat /dev/chatty; echo 'return 7' >&3; cat <&3"
    )
    assert said == "7\n"
    machine.succeed('dmesg | grep "not the session\'s"')


def test_a_killed_reader_ends_its_wait_and_not_the_script(machine: Machine) -> None:
    run(
        machine,
        "patient",
        'local c, first = require("completion").new(), true\n'
        'require("device").new{name = "patient", read = function()\n'
        'if first then first = false c:wait() end return "x" end}',
    )
    machine.fail("timeout -s INT 1 cat /dev/patient")
    assert machine.succeed("head -c 1 /dev/patient") == "x"
    (line,) = machine.succeed("lunatik list").splitlines()
    assert "patient" in line and "broken" not in line


def test_a_killed_caller_does_not_end_whom_it_resumed(machine: Machine) -> None:
    run(machine, "served", "return function() require('linux').schedule(3000) return 'here' end")
    resume = "lunatik -e 'return require(\"lunatik\")._ENV.runtimes.served:resume()'"
    machine.fail(f"timeout -s KILL 1 {resume}")
    assert machine.succeed(resume).strip() == "here"
    assert "broken" not in machine.succeed("lunatik list")


def test_a_thread_whose_child_was_stopped_still_waits(machine: Machine) -> None:
    machine.copy_to(b"require('linux').schedule(20000)", "/lib/modules/lua/child.lua")
    machine.copy_to(
        b"""
        local lunatik, linux = require("lunatik"), require("linux")
        return function()
            pcall(lunatik.runtime, "child", "softirq")
            local began = linux.time()
            linux.schedule(500)
            lunatik._ENV.slept = (linux.time() - began) // 1000000
        end
        """,
        "/lib/modules/lua/parent.lua",
    )
    machine.succeed("lunatik spawn parent")
    machine.wait_until_succeeds("lunatik list | grep child")
    machine.lua('require("lunatik").stop("child")')
    slept = "lunatik -e 'return require(\"lunatik\")._ENV.slept'"
    assert int(machine.wait_until_succeeds(f"{slept} | grep -v nil")) >= 450


@pytest.mark.parametrize(
    "makes", ["made = require('data').new(100000)", "while true do _ = ('x'):rep(100000) end"]
)
def test_what_a_finalizer_makes_at_the_end_is_given_back(machine: Machine, makes: str) -> None:
    chunk = f"require('data')\nkeep = setmetatable({{}}, {{__gc = function() {makes} end}})"
    assert machine.execute("lunatik -e -", input=chunk).status == 0
    machine.wait_until_succeeds("rmmod lunatik_data")


@pytest.mark.parametrize("wait", ["c:wait()", "linux.schedule()", "while true do c:wait(1) end"])
def test_a_finalizer_does_not_wait(machine: Machine, wait: str) -> None:
    """Nobody could wake it, and the end of its runtime would never come."""
    chunk = (
        'local c, linux = require("completion").new(), require("linux")\n'
        f"keep = setmetatable({{}}, {{__gc = function() {wait} end}})"
    )
    assert machine.execute("lunatik -e -", input=chunk, timeout=10).status == 0
    machine.wait_until_succeeds('test -z "$(lunatik list)"')
    machine.succeed("modprobe -r lunatik_completion")


@pytest.mark.machine(cpus=2)
def test_stopped_while_its_thread_is_made(machine: Machine) -> None:
    machine.copy_to(
        b'local t, l = require("thread"), require("linux")\n'
        b"return function() while not t.shouldstop() do l.schedule(10) end end",
        "/lib/modules/lua/brief.lua",
    )
    # kthreadd makes it, on a processor that it can hardly have.
    machine.succeed("taskset -p 2 2")
    machine.succeed(
        "timeout 8 taskset 2 chrt -f 10 yes > /dev/null 2>&1 & "
        "for pause in 0.2 0.4 0.6 0.2 0.4; do "
        "taskset 1 lunatik spawn brief > /dev/null 2>&1 & "
        "sleep $pause; taskset 1 lunatik stop brief; wait $!; done",
        timeout=60,
    )
    machine.execute("lunatik stop brief")
    machine.wait_until_succeeds('test -z "$(lunatik list)"')
    machine.succeed("modprobe -r lunatik_thread")


def test_a_library_that_is_asked_for_often_is_held_once(machine: Machine) -> None:
    run(machine, "often", 'for i = 1, 500 do package.loaded.fifo = nil require("fifo") end')
    assert int(machine.succeed("cat /sys/module/lunatik_fifo/refcnt")) < 5
    machine.succeed("lunatik stop often", "modprobe -r lunatik_fifo")


def test_what_the_loading_task_used_before_is_not_the_scripts(machine: Machine) -> None:
    machine.copy_to(
        b"for i = 1, 200000 do end return function() end", "/lib/modules/lua/modest.lua"
    )
    chunk = (
        'local lunatik = require("lunatik")\n'
        'local r = lunatik.runtime("modest", "process", {share = 50})\n'
        'for _, each in ipairs(lunatik.status()) do if each.name == "modest" then\n'
        "return each.time // 1000000 end end"
    )
    machine.copy_to(chunk.encode(), "/tmp/chunk")
    busy = (
        "import os, time\n"
        "while time.process_time() < 1: pass\n"
        "file = os.open('/dev/lunatik', os.O_RDWR)\n"
        "os.write(file, open('/tmp/chunk', 'rb').read())\n"
        "print(os.read(file, 100).decode())\n"
    )
    machine.copy_to(busy.encode(), "/tmp/busy.py")
    assert int(machine.succeed("python3 /tmp/busy.py", timeout=60)) < 500  # ms


SHORT = (
    b'require("device").new{name = "short", read = function() for i = 1, 300 do end return "x" end}'
)


def of_short(machine: Machine, field: str) -> int:
    """A figure of that runtime's status."""
    return int(
        machine.lua(
            'for _, each in ipairs(require("lunatik").status()) do '
            f'if each.name == "short" then return each.{field} end end'
        )
    )


def test_each_short_entry_is_counted(machine: Machine) -> None:
    """A tick comes in one of a hundred of them; the others are not free."""
    run(machine, "short", SHORT.decode())
    times = [of_short(machine, "time")]
    for _ in range(10):
        machine.succeed("head -c 1 /dev/short")
        times.append(of_short(machine, "time"))
    assert all(later > earlier for earlier, later in itertools.pairwise(times)), times


def test_short_entries_pay_for_their_share(machine: Machine) -> None:
    machine.copy_to(SHORT, "/lib/modules/lua/short.lua")
    machine.lua(
        'local lunatik = require("lunatik")\n'
        'lunatik._ENV.short = lunatik.runtime("short", "process", {share = 5})'
    )
    # As long as it takes, as processors differ: they begin with what a second earns.
    machine.execute("timeout 4 dd if=/dev/short of=/dev/null bs=1", timeout=60)
    throttled, time = (of_short(machine, field) for field in ("throttled", "time"))
    assert throttled > 0
    # 4 s earn it a fifth of one, and the first second's twentieth is a gift.
    assert time < 5e8
    machine.lua('require("lunatik")._ENV.short = nil')


@pytest.mark.parametrize(
    "opens",
    [
        'lunatik.runtime("served")',
        'require("served")',
        'require("bpf").hash("/sys/fs/bpf/m")',
        'require("notifier").netdevice(print)',
    ],
)
def test_an_exiting_task_opens_nothing(machine: Machine, opens: str) -> None:
    """Its last file is released after it has given up its files and its root."""
    machine.copy_to(b"return 1", "/lib/modules/lua/served.lua")
    run(
        machine,
        "left",
        f"""
        local lunatik = require("lunatik")
        require("bpf") require("notifier")
        require("device").new{{name = "left", release = function()
            print(pcall(function() return {opens} end))
        end}}
        """,
    )
    machine.succeed("sh -c 'exec 3</dev/left; exit'")
    machine.succeed("dmesg | grep 'false.*ESRCH'")
    assert "broken" not in machine.succeed("lunatik list")
