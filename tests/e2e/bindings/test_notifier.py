# SPDX-License-Identifier: GPL-2.0-only
"""notifier: devices come and go, keys are pressed, terminals written; scripts are told."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from counters import uptime

from lab.vm.errors import CommandFailed
from lab.vm.machine import Machine

Script = Callable[..., None]

WATCH = """
local notifier = require("notifier")
local netdev, notify = require("linux.netdev"), require("linux.notify")
local names = {}
for name, value in pairs(netdev) do names[value] = names[value] or name end
names[netdev.REGISTER], names[netdev.UNREGISTER] = "REGISTER", "UNREGISTER"
names[netdev.UP], names[netdev.DOWN] = "UP", "DOWN"
local watch
watch = notifier.netdevice(function(event, name)
    print("saw", names[event], name)
    %s
end)
print("body is done")
"""


def seen(machine: Machine) -> list[str]:
    """ "REGISTER lo" and so on, as the script printed them."""
    lines = machine.succeed("dmesg | sed -n 's/.*script: saw\\t//p'").splitlines()
    return [line.replace("\t", " ") for line in lines]


def test_devices_that_are_there_are_replayed_in_the_body(machine: Machine, script: Script) -> None:
    machine.succeed("ip link add dummy7 type dummy", "ip link set dummy7 up")
    script(WATCH % "")
    events = seen(machine)
    assert "REGISTER lo" in events
    assert events.index("REGISTER dummy7") < events.index("UP dummy7")
    log = machine.succeed("dmesg")
    assert log.index("dummy7") < log.rindex("body is done")


def test_who_tells_of_them_cannot_be_called(machine: Machine, script: Script) -> None:
    script(
        """
        local found = {}
        require("notifier").netdevice(function()
            for level = 1, 9 do
                local info = debug.getinfo(level, "f")
                if info and info.func then found[info.func] = true end
            end
        end)
        for f in pairs(found) do pcall(f) end
        print("body is done")
        """
    )
    machine.wait_until_succeeds("dmesg | grep 'body is done'")


def test_devices_that_come_and_go_are_told(machine: Machine, script: Script) -> None:
    script(WATCH % "")
    before = len(seen(machine))
    machine.succeed("ip link add dummy7 type dummy", "ip link set dummy7 up", "ip link del dummy7")
    events = seen(machine)[before:]
    wanted = [f"{event} dummy7" for event in ("REGISTER", "UP", "DOWN", "UNREGISTER")]
    assert [event for event in events if event in wanted] == wanted


@pytest.mark.parametrize("inside", ["", "ip netns exec blue "])
def test_number_is_that_of_a_device_of_the_own_namespace(machine: Machine, inside: str) -> None:
    # Of the same name there and here, and one of them with a number that is nobody's here.
    machine.succeed(
        "ip netns add blue",
        "ip link add twin type dummy; ip -n blue link add twin index 4711 type dummy",
    )
    machine.copy_to(
        b"""
        local netdev = require("linux.netdev")
        require("notifier").netdevice(function(event, name, ifindex)
            if event == netdev.REGISTER or event == netdev.UNREGISTER then
                print("saw", event == netdev.REGISTER and "+" or "-", name, ifindex)
            end
        end)""",
        "/lib/modules/lua/script.lua",
    )
    here = machine.succeed("cat /sys/class/net/twin/ifindex").strip()
    machine.succeed(f"{inside}lunatik run script")
    numbers = {event.split()[2] for event in seen(machine) if " twin " in event}
    assert numbers == {"nil", "4711" if inside else here}, "those that are there already"

    before = len(seen(machine))
    machine.succeed(
        "ip link add mover index 4712 type dummy; ip link set mover netns blue",
        "ip -n blue link del mover",
    )
    first, then = ("nil", "4712") if inside else ("4712", "nil")
    assert seen(machine)[before:] == [
        f"+ mover {first}",
        f"- mover {first}",
        f"+ mover {then}",
        f"- mover {then}",
    ]
    machine.succeed("lunatik stop script")


def test_a_script_can_forbid_a_device(machine: Machine, script: Script) -> None:
    script(WATCH % 'if event == netdev.PRE_UP and name == "dummy7" then return notify.BAD end')
    machine.succeed("ip link add dummy7 type dummy", "ip link add dummy8 type dummy")
    machine.fail("ip link set dummy7 up")
    machine.succeed("ip link set dummy8 up", "lunatik stop script", "ip link set dummy7 up")


def test_stopped_from_its_own_callback_it_is_silent(machine: Machine, script: Script) -> None:
    script(WATCH % 'if name == "dummy7" then watch:stop() watch:stop() end')
    machine.succeed("ip link add dummy7 type dummy", "ip link add dummy8 type dummy")
    assert not [event for event in seen(machine) if "dummy8" in event]
    assert len([event for event in seen(machine) if "dummy7" in event]) == 1
    machine.succeed("lunatik stop script", "ip link del dummy7")


def test_no_event_after_the_script_was_stopped(machine: Machine, script: Script) -> None:
    script(WATCH % "")
    machine.succeed("lunatik stop script")
    before = len(seen(machine))
    machine.succeed("ip link add dummy7 type dummy", "ip link del dummy7")
    assert len(seen(machine)) == before
    machine.succeed("modprobe -r lunatik_notifier")


@pytest.mark.parametrize("answer", ["77", "'x'", "{}", "error('rotten')", "1 << 40", "-22"])
def test_rubbish_for_an_answer_stops_nothing(machine: Machine, script: Script, answer: str) -> None:
    statement = answer if answer.startswith("error") else f"return {answer}"
    script(WATCH % f'if name == "dummy7" then {statement} end')
    machine.succeed("ip link add dummy7 type dummy", "ip link set dummy7 up")
    assert "UP dummy7" in seen(machine)
    machine.succeed("dmesg | grep -E 'NOTIFY_ value|rotten'")


def test_no_second_notifier_from_a_callback(machine: Machine, script: Script) -> None:
    # It would wait for the very lock that its caller holds.
    script(
        WATCH % 'if name == "dummy7" then print(select(2, pcall(notifier.netdevice, print))) end'
    )
    machine.succeed("ip link add dummy7 type dummy")
    machine.succeed("dmesg | grep 'not in the callback of another one'")


def test_a_runtime_that_broke_its_cap_holds_up_nobody(machine: Machine, script: Script) -> None:
    script(WATCH % 'if name == "dummy7" then while true do end end')
    machine.execute("ip link add dummy7 type dummy", timeout=120)
    machine.succeed("ip link add dummy8 type dummy", "ip link del dummy8", timeout=30)
    assert "dummy7" in machine.succeed("ip -br link")
    machine.succeed("lunatik list | grep broken", "lunatik stop script")


def test_a_runtime_has_so_many_and_no_more(script: Script) -> None:
    script(
        """
        local notifier = require("notifier")
        local watches = {}
        local function add() watches[#watches + 1] = notifier.netdevice(function() end) end
        for i = 1, 16 do add() end
        raises("16 notifiers at most", add)
        for i = 1, 40 do
            local watch = table.remove(watches, 3)
            watch:stop() watch:stop()
            add()
            raises("16 notifiers at most", add)
        end
        """
    )


def test_an_error_in_the_replay_leaves_no_notifier(machine: Machine, script: Script) -> None:
    script(
        """
        local notifier = require("notifier")
        local function tell(event, name)
            print("saw", event, name)
            error("rotten")
        end
        for i = 1, 40 do raises("rotten", notifier.netdevice, tell) end
        """
    )
    before = len(seen(machine))
    assert before == 40
    machine.succeed("ip link add dummy7 type dummy", "ip link del dummy7")
    assert len(seen(machine)) == before


@pytest.mark.parametrize(
    ("call", "context"),
    [("netdevice", "hardirq"), ("keyboard", "process"), ("vterm", "process"), ("vterm", "softirq")],
)
def test_refused_where_it_could_not_run(script: Script, call: str, context: str) -> None:
    with pytest.raises(CommandFailed, match="not available in a"):
        script(f'require("notifier").{call}(print)', context=context)


@pytest.mark.parametrize("argument", ["", "nil", "7", "{}"])
def test_a_callback_is_a_function(script: Script, argument: str) -> None:
    with pytest.raises(CommandFailed, match="function expected"):
        script(f'require("notifier").netdevice({argument})')


def test_what_a_terminal_is_told_to_write(machine: Machine, script: Script) -> None:
    script(
        """
        local count = 0
        local watch
        watch = require("notifier").vterm(function(event, c, vc)
            if c == 0x7a and vc == 0 then
                count = count + 1
                print("wrote z, times " .. count .. (" event %d"):format(event))
                if count == 2 then watch:stop() end
            end
        end)
        """,
        context="hardirq",
    )
    machine.succeed("printf zzzz > /dev/tty1")
    said = machine.wait_until_succeeds("dmesg | grep 'wrote z'")
    assert "times 2" in said
    assert "times 3" not in said
    machine.succeed("lunatik stop script")


@pytest.mark.machine(cpus=2, cmdline=("console=tty0", "console=ttyS0"))
def test_who_prints_does_not_wait_for_a_console_that_waits_for_them(
    machine: Machine, script: Script
) -> None:
    """A terminal that shows the log tells of each character, interrupts off."""
    machine.succeed("echo 100 > /sys/module/lunatik/parameters/interrupt_share")
    script(
        """
        local told = 0
        require("notifier").vterm(function() told = told + 1 end)
        require("probe").new("__x64_sys_getpgid", {pre = function() print("here", told) end})
        """,
        context="hardirq",
    )
    # As many as are printed at once, and no line after the last: the log is short.
    hits = (
        "import os, sys, time\nfor n in range(50): time.sleep(0.01); os.getpgid(0)\n"
        "os.kill(int(sys.argv[1]), 9)"
    )
    machine.succeed(
        f"(while :; do echo a line > /dev/kmsg; done) > /dev/null 2>&1 & python3 -c '{hits}' $!",
        timeout=60,
    )
    said = machine.succeed("dmesg | sed -n 's/.*script: here\\t//p' | tail -n 1")
    assert int(said) > 0, "the terminal did show the log"
    machine.succeed("lunatik stop script")


def test_keys_are_told(machine: Machine, script: Script) -> None:
    script(
        """
        require("notifier").keyboard(function(event, down, shift, value)
            if type(down) == "boolean" and type(shift) == "boolean" and value == 30 then
                print("key 30 " .. (down and "down" or "up"))
            end
        end)
        """,
        context="hardirq",
    )
    machine.body.monitor("send-key", keys=[{"type": "qcode", "data": "a"}])
    machine.wait_until_succeeds("dmesg | grep 'key 30 up'")


def test_a_callback_may_not_wait(machine: Machine, script: Script) -> None:
    script(WATCH % 'if name == "dummy7" then require("linux").schedule(60000) end')
    machine.succeed("ip link add dummy7 type dummy", timeout=10)
    machine.succeed("dmesg | grep 'not where all the kernel waits'")


def test_a_busy_script_does_not_hold_up_each_of_many_devices(machine: Machine) -> None:
    """16 notifiers, and four events of each device: each would wait for a moment."""
    machine.copy_to(
        b"""
        local notifier, linux = require("notifier"), require("linux")
        local kept = {}
        for number = 1, 16 do kept[number] = notifier.netdevice(function() end) end
        return function() linux.schedule(60000) end
        """,
        "/lib/modules/lua/busy.lua",
    )
    machine.succeed("lunatik spawn busy")
    began = uptime(machine)
    machine.succeed(
        "for i in 1 2 3 4 5 6 7 8; do ip link add dummy$i type dummy; ip link set dummy$i up; done",
        "for i in 1 2 3 4 5 6 7 8; do ip link del dummy$i; done",
        timeout=100,
    )
    passed = uptime(machine) - began
    # Each wait for itself would be 8 * 6 * 16 tenths of a second.
    assert passed < 20, passed
    machine.succeed("lunatik stop busy")


def test_a_busy_script_holds_up_the_devices_for_a_moment_only(
    machine: Machine, script: Script
) -> None:
    machine.copy_to(
        b'local linux, thread = require("linux"), require("thread")\n'
        b'require("notifier").netdevice(print)\n'
        b"return function() while not thread.shouldstop() do linux.schedule(100) end end",
        "/lib/modules/lua/busy.lua",
    )
    machine.succeed("lunatik spawn busy")
    machine.succeed("ip link add dummy7 type dummy", "ip link set dummy7 up", timeout=8)
    machine.succeed("lunatik stop busy")


@pytest.mark.parametrize(
    "wait", ['pcall(lunatik.runtime, "nosuch")', "pcall(other.resume, other)", "other:stop()"]
)
def test_a_callback_does_not_wait_for_ever(machine: Machine, script: Script, wait: str) -> None:
    """Each wait is short, and none is a new entry with a new budget."""
    machine.copy_to(
        b"return function() require('linux').schedule(60000) end", "/lib/modules/lua/other.lua"
    )
    script(
        f"""
        local lunatik = require("lunatik")
        local thread = require("thread")
        local other = lunatik.runtime("other")
        local busy = thread.run(other, "busy")
        require("notifier").netdevice(function(event, name)
            if name == "dummy7" then while true do {wait} end end
        end)
        """
    )
    machine.succeed("ip link add dummy7 type dummy", timeout=20)
    machine.succeed("lunatik list | grep 'broken: instruction budget exceeded'")


@pytest.mark.parametrize("answer", ["BAD", "STOP"])
def test_nobody_is_kept_from_a_device_that_goes(
    machine: Machine, script: Script, answer: str
) -> None:
    """IPv6 is told after the script, and gives the device back then."""
    script(
        f"""
        local notify, netdev = require("linux.notify"), require("linux.netdev")
        require("notifier").netdevice(function(event, name)
            if event == netdev.UNREGISTER or event == netdev.DOWN then return notify.{answer} end
        end)
        """
    )
    machine.succeed("ip netns add gone", "ip -n gone link set lo up", "ip netns del gone")
    # A namespace that does not come to its end keeps all notifiers from leaving.
    machine.succeed("sleep 1", "lunatik stop script", timeout=20)
    machine.succeed("ip netns add another", "ip netns del another")
