# SPDX-License-Identifier: GPL-2.0-only
"""Vagrant's machines in the words of any other test."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.net.network import Network
from lab.vm.errors import CommandTimeout, GuestPanicked
from lab.vm.machine import Machine

pytestmark = pytest.mark.limit(600)

DROP = """
local netfilter = require("netfilter")
local nf = require("linux.nf")
netfilter.register{
    hook = function() return nf.action.DROP end,
    pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN, priority = nf.ip.pri.FILTER,
}
"""


def test_lua_stands_between_two_machines(net: Network) -> None:
    left, right = net.nodes()
    left.succeed(f"ping -c 1 -W 5 {net.address('right')}")
    right.copy_to(DROP, "/lib/modules/lua/drop.lua")
    right.succeed("lunatik run drop softirq")
    # Control is out of the way: both can still be spoken to.
    left.fail(f"ping -c 1 -W 2 {net.address('right')}")
    right.succeed("lunatik stop drop")
    left.succeed(f"ping -c 1 -W 5 {net.address('right')}")
    with net.link("wire").down():
        left.wait_until_succeeds("ip link show dev eth0 | grep NO-CARRIER")


@pytest.mark.fresh
@pytest.mark.parametrize("turn", [1, 2])
def test_nothing_is_left_of_the_test_before(machine: Machine, turn: int) -> None:
    machine.fail("test -e /root/left")
    assert machine.succeed("hostname").strip() == "machine"
    machine.succeed(f"echo {turn} >/root/left; sync")


def test_commands_end_as_anywhere(machine: Machine) -> None:
    done = machine.execute("cat; echo no >&2; kill -9 $$", input="yes")
    assert (done.status, done.stdout, done.stderr) == (137, "yes", "no\n")
    with pytest.raises(CommandTimeout, match="so far"):
        machine.execute("echo so far; sleep 100", timeout=1)
    machine.fail("pgrep -x sleep")
    data = bytes(range(256)) * 4096
    machine.copy_to(data, "/tmp/bytes", mode=0o640)
    assert machine.copy_from("/tmp/bytes") == data
    assert machine.succeed("stat -c %a /tmp/bytes") == "640\n"


@pytest.mark.splat("scheduling while atomic: me")
def test_splat_is_noticed(machine: Machine) -> None:
    machine.succeed("echo '<4>BUG: scheduling while atomic: me/1/0x2' >/dev/kmsg")


def test_panic_is_told_from_silence(machine: Machine) -> None:
    machine.crash(timeout=30)
    with pytest.raises(GuestPanicked, match="sysrq"):
        machine.succeed("true")


def test_machine_that_died_is_replaced(start: Callable[..., Machine]) -> None:
    assert start("after").succeed("uname -n") == "after\n"


def test_agent_is_started_however_often_it_fails(machine: Machine) -> None:
    # systemd gives up on what fails five times in ten seconds, and Vagrant waits in
    # vain for a machine without an agent.
    machine.succeed(
        "for _ in 1 2 3 4 5 6 7 8; do systemctl kill -s KILL qemu-guest-agent; sleep 0.4; done"
    )
    machine.wait_until_succeeds("systemctl is-active qemu-guest-agent")
