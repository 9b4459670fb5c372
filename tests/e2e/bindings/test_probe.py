# SPDX-License-Identifier: GPL-2.0-only
"""probe: scripts run when the kernel does what they probe."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.vm.errors import CommandFailed
from lab.vm.machine import Machine

Script = Callable[..., None]

# getpgid() is called by nobody but who is told to.
SYSCALL = "__x64_sys_getpgid"
CALL = "python3 -c 'import os; os.getpgid(0)'"

COUNT = """
local probe, linux = require("probe"), require("linux")
local hits = {pre = 0, post = 0}
local p
p = probe.new(%s, {
    pre = function(target, dump)
        hits.pre = hits.pre + 1
        print("pre " .. hits.pre .. " of " .. tostring(target) .. " " .. type(dump))
        %s
    end,
    post = function() hits.post = hits.post + 1 print("post " .. hits.post) end,
})
return function(command)
    p:enable(command ~= nil)
end
"""


def hits(machine: Machine, what: str) -> int:
    """How often a handler has run."""
    return int(machine.succeed(f"dmesg | grep -c 'script: {what} ' || true"))


def test_each_hit_before_and_after(machine: Machine, script: Script) -> None:
    script(COUNT % (f'"{SYSCALL}"', ""), context="hardirq")
    assert (hits(machine, "pre"), hits(machine, "post")) == (0, 0)
    machine.succeed(CALL, CALL)
    assert (hits(machine, "pre"), hits(machine, "post")) == (2, 2)
    machine.succeed(f"dmesg | grep 'pre 1 of {SYSCALL} function'")
    machine.succeed("lunatik stop script", CALL)
    assert hits(machine, "pre") == 2
    machine.succeed("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug")
    machine.fail("grep -q . /sys/kernel/debug/kprobes/list")
    machine.succeed("modprobe -r lunatik_probe")


def test_by_address(machine: Machine, script: Script) -> None:
    script(COUNT % (f'linux.lookup("{SYSCALL}")', ""), context="hardirq")
    machine.succeed(CALL)
    assert hits(machine, "pre") == 1
    machine.succeed("dmesg | grep 'pre 1 of userdata'")


def test_stopped_from_its_own_handler(machine: Machine, script: Script) -> None:
    script(COUNT % (f'"{SYSCALL}"', "p:stop() p:stop()"), context="hardirq")
    machine.succeed(CALL, CALL)
    assert (hits(machine, "pre"), hits(machine, "post")) == (1, 0)
    machine.succeed("lunatik stop script")


def test_enable_off_and_on(machine: Machine, script: Script) -> None:
    script(COUNT % (f'"{SYSCALL}"', "p:enable(false)"), context="hardirq")
    machine.succeed(CALL, CALL)
    assert hits(machine, "pre") == 1
    machine.lua(
        """
        local runtime = require("lunatik")._ENV.runtimes["script"]
        runtime:resume(require("completion").new())
        """
    )
    machine.wait_until_succeeds(f"{CALL}; dmesg | grep 'script: pre 2 '")


def test_a_handler_that_fails_says_so_and_the_kernel_goes_on(
    machine: Machine, script: Script
) -> None:
    script(COUNT % (f'"{SYSCALL}"', 'error("rotten")'), context="hardirq")
    machine.succeed(CALL)
    machine.wait_until_succeeds("dmesg | grep rotten")


def test_a_closed_probe_cannot_be_enabled(script: Script) -> None:
    script(
        f"""
        local p = require("probe").new("{SYSCALL}", {{pre = print}})
        p:stop()
        raises("probe is closed", p.enable, p, true)
        raises("probe expected", p.enable, require("completion").new(), true)
        """,
        context="hardirq",
    )


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ('"no_such_function_anywhere"', "ENOENT"),
        ('"%s%n%x"', "ENOENT"),
        ('""', "invalid symbol"),
        ('"a\\0b"', "invalid symbol"),
        ('("x"):rep(5000)', "invalid symbol"),
        ("0", "EINVAL"),
        # Where no text is: which errno says so is the kernel's affair.
        ("1", "ENOENT|EINVAL"),
        ("-1", "ENOENT|EINVAL"),
        ("math.mininteger", "ENOENT|EINVAL"),
        ('"kprobe_dispatcher"', "EINVAL"),
        ("nil", "string expected"),
    ],
)
def test_what_cannot_be_probed(script: Script, target: str, message: str) -> None:
    with pytest.raises(CommandFailed, match=message):
        script(f'require("probe").new({target}, {{pre = print}})', context="hardirq")


def test_what_cannot_be_probed_is_forgotten(script: Script) -> None:
    script(
        """
        local probe = require("probe")
        local kept = setmetatable({}, {__mode = "k"})
        local function try()
            local handlers = {pre = function() return kept end, post = function() return kept end}
            kept[handlers.pre], kept[handlers.post] = true, true
            raises("ENOENT", probe.new, "no_such_function_anywhere", handlers)
        end
        try()
        collectgarbage()
        collectgarbage()
        assert(next(kept) == nil)
        """,
        context="hardirq",
    )


def test_a_handler_beside_a_wrong_one_is_forgotten(script: Script) -> None:
    script(
        f"""
        local probe = require("probe")
        local kept = setmetatable({{}}, {{__mode = "k"}})
        local function try()
            local pre = function() return kept end
            kept[pre] = true
            raises("function expected", probe.new, "{SYSCALL}", {{pre = pre, post = 1}})
        end
        try()
        collectgarbage()
        collectgarbage()
        assert(next(kept) == nil)
        """,
        context="hardirq",
    )


@pytest.mark.parametrize("context", ["process", "softirq"])
def test_refused_where_it_could_not_run(script: Script, context: str) -> None:
    with pytest.raises(CommandFailed, match="not available in a"):
        script('require("probe")', context=context)


def test_in_the_middle_of_the_scripts_own_entry(machine: Machine, script: Script) -> None:
    # What the runtime itself calls under its lock must not lock it up.
    script(
        """
        local probe = require("probe")
        local count = 0
        for _, name in ipairs{"kfree", "_raw_spin_unlock_irqrestore", "_printk"} do
            local ok, why = pcall(probe.new, name, {pre = function() count = count + 1 end})
            print(name, ok, why)
        end
        return function(d) d:setuint32(0, count) end
        """,
        context="hardirq",
    )
    said = machine.lua(
        """
        local d = require("data").new(4)
        local runtime = require("lunatik")._ENV.runtimes["script"]
        for i = 1, 20 do runtime:resume(d) end
        return d:getuint32(0)
        """,
        timeout=60,
    )
    assert int(said) > 0
    machine.succeed("lunatik stop script")


def test_a_hit_under_the_lock_of_the_console(machine: Machine, script: Script) -> None:
    """Who starts to send holds the port's, and whoever prints at once wants it again."""
    script('require("probe").new("serial8250_start_tx", {pre = function() end})', context="hardirq")
    machine.execute("echo > /dev/console", timeout=20)
    said = "script: hits of serial8250_start_tx"
    machine.wait_until_succeeds(f"dmesg | grep '{said}.* with interrupts off are left out'")
    machine.succeed("sleep 0.5")
    assert said in machine.kernel_log(), "it has come to the console, too"
    machine.succeed("lunatik stop script")


def test_a_backtrace_tells_who_called(machine: Machine, script: Script) -> None:
    script(COUNT % (f'"{SYSCALL}"', "dump()"), context="hardirq")
    machine.succeed(CALL)
    said = machine.succeed("dmesg | grep -A 64 'Call Trace:'")
    assert "do_syscall_64+" in said
    assert "Comm: python3" in machine.succeed("dmesg | grep 'script: CPU: '")


def test_backtraces_are_paid_for(machine: Machine, script: Script) -> None:
    script(COUNT % (f'"{SYSCALL}"', "for i = 1, 1200 do dump() end"), context="hardirq")
    machine.succeed(CALL)
    assert 1 <= int(machine.succeed("dmesg | grep -c 'Call Trace:'")) < 10
    assert "instruction budget exceeded" in machine.succeed("lunatik list")
