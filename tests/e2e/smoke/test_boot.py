# SPDX-License-Identifier: GPL-2.0-only
"""The thread end to end: our kernel boots, answers, and every machine is pristine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine


def test_runs_the_kernel_that_was_built(machine: Machine, kernel: KernelInfo) -> None:
    assert machine.succeed("uname -r").strip() == kernel.version


def test_its_config_is_the_one_that_was_verified(machine: Machine, kernel: KernelInfo) -> None:
    assert machine.succeed("zcat /proc/config.gz").splitlines() == (
        kernel.config.read_text().splitlines()
    )


def test_streams_and_status_come_apart(machine: Machine) -> None:
    done = machine.execute("echo out; echo err >&2; exit 7")
    assert (done.status, done.stdout, done.stderr) == (7, "out\n", "err\n")


def test_files_go_both_ways(machine: Machine, tmp_path: Path) -> None:
    data = bytes(range(256)) * 1000
    (tmp_path / "file").write_bytes(data)
    machine.copy_to(tmp_path / "file", "/root/file")
    assert machine.copy_from("/root/file") == data


@pytest.mark.fresh
@pytest.mark.parametrize("turn", [1, 2])
def test_nothing_leaks_from_test_to_test(machine: Machine, turn: int) -> None:
    machine.fail("test -e /root/trace")
    assert machine.succeed("cat /proc/sys/net/ipv4/ip_default_ttl").strip() == "64"
    machine.succeed(f"echo {turn} > /root/trace", "sysctl -w net.ipv4.ip_default_ttl=33")


def test_two_machines_are_two(machines: Callable[..., list[Machine]]) -> None:
    alice, bob = machines("alice", "bob")
    assert [m.succeed("hostname").strip() for m in (alice, bob)] == ["alice", "bob"]
    alice.succeed("touch /root/mine")
    bob.fail("test -e /root/mine")
    seeds = {m.succeed("head -c 16 /dev/urandom | od -An -tx1") for m in (alice, bob)}
    assert len(seeds) == 2
    macs = {m.succeed("cat /sys/class/net/eth0/address") for m in (alice, bob)}
    assert len(macs) == 2


@pytest.mark.machine(cold=True)
def test_cold_boot(machine: Machine, kernel: KernelInfo) -> None:
    assert not machine.cloned
    assert machine.succeed("uname -r").strip() == kernel.version
    assert "Linux version " + kernel.version in machine.kernel_log()
