# SPDX-License-Identifier: GPL-2.0-only
"""What puts hooks beside the kernel's selftests says when there were none."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.vm.machine import Machine

HOOKS = (Path(__file__).parents[2] / "kselftest/hooks.sh").read_text()

#: Sends a frame over lo that no other position sees.
NO_IP = (
    "import socket; here = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); "
    "here.bind(('lo', 0)); here.send(bytes(12) + bytes([0x88, 0xb5]) + bytes(46))"
)


def entries(machine: Machine, name: str) -> int:
    """How often a runtime was called, by `lunatik top`, where memory is two words each."""
    return int(machine.succeed(f"lunatik top | awk '$1 == \"{name}\" {{ print $9 }}'"))


# Its `ip` is another one afterwards.
@pytest.mark.fresh
@pytest.mark.limit(120)
def test_namespace_without_hooks_is_told(machine: Machine) -> None:
    machine.succeed(HOOKS)
    # As a program does; a name may come again.
    machine.succeed("ip netns add ns-1; ip netns add ns-2; ip netns delete ns-1; ip netns add ns-1")
    before = entries(machine, "look_ns-1")
    machine.succeed("ip -n ns-1 link set lo up; ip netns exec ns-1 ping -c 1 127.0.0.1")
    assert entries(machine, "look_ns-1") > before, "its hooks are those of the second"
    machine.succeed("/run/after")

    ping = "ip link set lo up; ping -c 1 127.0.0.1 >&2; echo $$"
    for options in ("-n", "--net -m"):
        number = machine.succeed(f"unshare {options} sh -c '{ping}'").strip()
        assert entries(machine, f"look_unshared_{number}") > 0, options
    assert machine.succeed("unshare -m echo 'a  b'") == "a  b\n"
    machine.succeed("/run/after")

    machine.succeed("lunatik stop look")
    machine.fail("/run/after")
    machine.succeed("lunatik run look softirq; /run/after")
    machine.succeed("echo 'error(\"rotten\")' >/lib/modules/lua/look.lua; ip netns add ns-3")
    assert machine.succeed("unshare -n echo 'a  b'") == "a  b\n"
    said = machine.execute("/run/after")
    assert said.status == 1
    assert "ns-3" in said.stdout
    assert "no hooks for echo" in said.stdout
    assert "rotten" in said.stdout


@pytest.mark.fresh
@pytest.mark.limit(120)
def test_packets_that_hooks_had_no_time_for_are_told(machine: Machine) -> None:
    machine.succeed(HOOKS)
    machine.succeed("lsmod | grep lunatik_xtable", "ip link set lo up; ping -c 3 127.0.0.1")
    before = entries(machine, "look")
    machine.succeed(f'python3 -c "{NO_IP}"')
    assert entries(machine, "look") == before + 1, "where lo takes packets in"
    assert re.search(r"looked at [1-9]\d* packets, throttled at 0$", machine.succeed("/run/after"))
    # The least that a script may have.
    machine.succeed(
        "lunatik stop look; echo 1 >/sys/module/lunatik/parameters/interrupt_share",
        "lunatik run look softirq; ping -f -c 2000 127.0.0.1",
    )
    said = machine.execute("/run/after")
    assert said.status == 1
    found = re.search(r"looked at (\d+) packets, throttled at (\d+)\n", said.stdout)
    assert found, said
    assert int(found[2]) > int(found[1]) // 9
    assert "hooks were throttled" in said.stderr
