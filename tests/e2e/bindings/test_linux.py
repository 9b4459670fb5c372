# SPDX-License-Identifier: GPL-2.0-only
"""linux: this and that of the kernel, and arguments that it does not take."""

from __future__ import annotations

from collections.abc import Callable

from lab.vm.machine import Machine

Check = Callable[[str], str]


def test_random_stays_within_its_bounds(check: Check) -> None:
    check(
        """
        local random = require("linux").random
        local seen = {}
        for i = 1, 500 do
            local n = random(3)
            assert(n >= 1 and n <= 3)
            seen[n] = true
        end
        assert(seen[1] and seen[2] and seen[3])
        assert(random(7, 7) == 7 and random(-2, -2) == -2)
        assert(math.type(random(math.mininteger, math.maxinteger)) == "integer")
        assert(random() ~= random())
        raises("interval is empty", random, 0)
        raises("interval is empty", random, 2, 1)
        raises("number expected", random, "x")
        """
    )


def test_time_is_the_clock(machine: Machine) -> None:
    said = int(machine.lua('return require("linux").time()'))
    assert abs(said / 1e9 - float(machine.succeed("date +%s.%N"))) < 30
    assert machine.lua('return require("linux").difftime(7, 10)') == "-3"


def test_schedule_sleeps_as_long_as_asked(machine: Machine) -> None:
    said = machine.lua(
        """
        local linux = require("linux")
        local before = linux.time()
        local left = linux.schedule(300)
        return (linux.time() - before) // 1000000, left
        """
    )
    spent, left = map(int, said.split())
    assert spent >= 295
    assert left == 0


def test_schedule_refuses_what_is_none(check: Check, other: Callable[[str], None]) -> None:
    other("local linux = require('linux') return function() linux.schedule(1) end")
    check(
        """
        local linux = require("linux")
        raises("bad argument", linux.schedule, -1)
        raises("unknown task state", linux.schedule, 1, 64)
        raises("unknown task state", linux.schedule, 1, -1)
        local soft = require("lunatik").runtime("other", "softirq")
        raises("sleep", soft.resume, soft)
        soft:stop()
        """
    )


def test_interfaces(machine: Machine, check: Check) -> None:
    machine.succeed("ip link set lo up", "ip link add dummy7 type dummy",
                    "ip addr add 10.1.2.3/24 dev dummy7")  # fmt: skip
    index = machine.succeed("cat /sys/class/net/dummy7/ifindex").strip()
    check(
        f"""
        local linux = require("linux")
        assert(linux.ifindex("dummy7") == {index} and linux.ifindex("lo") == 1)
        assert(linux.ifaddr({index}) == 0x0a010203 and linux.ifaddr(1) == 0x7f000001)
        raises("ENODEV", linux.ifindex, "nothing0")
        raises("ENODEV", linux.ifindex, "%s%n")
        raises("ENODEV", linux.ifindex, ("x"):rep(5000))
        raises("ENODEV", linux.ifaddr, 9999)
        for _, n in ipairs{{0, -1, 1 << 31, 1 << 32, (1 << 32) + 1}} do
            raises("bad argument", linux.ifaddr, n)
        end
        """
    )


def test_errname_lookup_and_tracing(check: Check) -> None:
    check(
        """
        local linux = require("linux")
        assert(linux.errname(22) == "EINVAL" and linux.errname(-22) == "EINVAL")
        for _, n in ipairs{0, 99999, 1 << 40, math.mininteger} do
            raises("bad argument", linux.errname, n)
        end
        assert(type(linux.lookup("vfs_read")) == "userdata")
        assert(linux.lookup("no_such_function") == nil and linux.lookup("%s%n") == nil)
        assert(linux.numcpus() >= 1)
        local was = linux.tracing()
        assert(linux.tracing(not was) == not was and linux.tracing(was) == was)
        raises("boolean expected", linux.tracing, 1)
        """
    )


def test_no_symbol_is_looked_up_where_all_the_kernel_waits(
    machine: Machine, script: Callable[..., None]
) -> None:
    script(
        """
        local linux = require("linux")
        require("notifier").netdevice(function(event, name)
            if name == "dummy7" then
                raises("not where all the kernel waits", linux.lookup, "vfs_read")
                print("refused")
            end
        end)
        """
    )
    machine.succeed("ip link add dummy7 type dummy", "dmesg | grep 'script: refused'")


def test_waiting_in_the_kernel_does_not_hold_up_the_machine(machine: Machine) -> None:
    machine.succeed("(lunatik -e 'require([[linux]]).schedule(600000)' &) >/dev/null 2>&1")
    assert machine.lua("return 1", timeout=60) == "1"
    machine.succeed("pgrep -f schedule.600000")


def test_its_metatable_is_out_of_reach(check: Check) -> None:
    """Its __index writes to what it is called with."""
    check(
        """
        local linux = require("linux")
        assert(getmetatable(linux) == false)
        raises("protected metatable", setmetatable, linux, {})
        assert(linux.stat == require("linux.stat"))
        """
    )
