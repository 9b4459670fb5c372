# SPDX-License-Identifier: GPL-2.0-only
"""Clones of real snapshots: alike in everything but what must differ."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from vm_kit import PATIENCE, spec, store

from lab.provider import qemu as backend
from lab.provider.qemu import QemuProvider
from lab.store import Store
from lab.vm import snapshot, wake
from lab.vm.executor import Executor
from lab.vm.machine import Machine
from lab.vm.spec import Dgram, Nic

#: Seconds since 1970: the year 2001.
LONG_AGO = 1_000_000_000


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(backend, "note", lines.append)
    return lines


@pytest.fixture
def provider(said: list[str]) -> Iterator[QemuProvider]:
    it = QemuProvider(store=store())
    yield it
    it.close()
    assert said == []


def start(provider: QemuProvider, directory: Path, name: str, **changes: object) -> Machine:
    return provider.start(spec(name, **changes), directory / name)


def test_clones_are_themselves(provider: QemuProvider, tmp_path: Path) -> None:
    a, b = (start(provider, tmp_path, name) for name in ("one", "two"))
    assert a.cloned and b.cloned
    assert [machine.succeed("hostname").strip() for machine in (a, b)] == ["one", "two"]
    macs = [machine.succeed("cat /sys/class/net/eth*/address").split() for machine in (a, b)]
    assert len(set(macs[0] + macs[1])) == 8
    # All from the kernel's generator, each by another way into it.
    randoms = [
        machine.succeed(
            "od -An -tx8 -N32 /dev/urandom; "
            "python3 -c 'import os; print(os.getrandom(8).hex())'; "
            "cat /proc/sys/kernel/random/uuid"
        )
        for machine in (a, b)
    ]
    assert not set(randoms[0].split()) & set(randoms[1].split())


def clock(machine: Machine) -> float:
    """Seconds since 1970, as the guest has it."""
    return float(machine.succeed("date +%s.%N"))


def test_a_clone_has_todays_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = QemuProvider(store=Store(tmp_path / "store"))
    shape = spec("a", memory=256)
    try:
        # As if it had been frozen long ago.
        with monkeypatch.context() as then:
            then.setattr(wake, "time", SimpleNamespace(time_ns=lambda: LONG_AGO * 10**9))
            mine.freeze(shape)
            old = mine.start(shape, tmp_path / "old")
        new = mine.start(shape, tmp_path / "new")
        assert old.cloned and new.cloned
        assert abs(clock(old) - LONG_AGO) < 1000
        assert abs(clock(new) - time.time()) < 5 * PATIENCE
    finally:
        mine.close()


def test_nothing_leaks_from_one_clone_to_the_next(provider: QemuProvider, tmp_path: Path) -> None:
    first = start(provider, tmp_path, "first")
    first.succeed(
        "echo dirt > /etc/dirt",
        "sysctl -w net.ipv4.ip_forward=1",
        "ip link add x type dummy",
        "dd if=/dev/urandom of=/big bs=1M count=50",
    )
    first.stop()
    second = start(provider, tmp_path, "second")
    second.fail("test -e /etc/dirt", "ip link show x", "test -e /big")
    assert second.succeed("sysctl -n net.ipv4.ip_forward").strip() == "0"


def test_wires_between_clones(provider: QemuProvider, tmp_path: Path) -> None:
    ends = tmp_path / "l", tmp_path / "r"
    pcap = tmp_path / "left.pcap"
    left = start(
        provider,
        tmp_path,
        "left",
        nics=(Nic(wire=Dgram(local=ends[0], remote=ends[1]), capture=pcap),),
    )
    right = start(
        provider, tmp_path, "right", nics=(Nic(wire=Dgram(local=ends[1], remote=ends[0])),)
    )
    assert left.cloned and right.cloned
    for number, machine in enumerate((left, right), 1):
        machine.succeed(f"ip addr add 10.9.0.{number}/24 dev eth0; ip link set eth0 up")
    left.wait_until_succeeds("ping -c1 -W1 10.9.0.2")
    assert "52:54:" in left.succeed("ip neigh show 10.9.0.2")
    left.stop()
    assert pcap.stat().st_size > 200


def test_history_is_in_the_log(provider: QemuProvider, tmp_path: Path) -> None:
    machine = start(provider, tmp_path, "a")
    machine.stop()
    log = (tmp_path / "a" / "kernel.log").read_text()
    assert "Linux version" in log, "the boot that it did not make itself"


def test_prepared_before_it_was_frozen(provider: QemuProvider, tmp_path: Path) -> None:
    machine = start(provider, tmp_path, "a", prepare=("echo done > /run/prepared",))
    assert machine.cloned
    assert machine.succeed("cat /run/prepared") == "done\n"


def refused(directory: Path, said: list[str], inspect: object = None, **changes: object) -> str:
    """Why a snapshot was refused; the machine then came up cold all the same."""
    provider = QemuProvider(store=Store(directory / "store"), inspect=inspect)  # type: ignore[arg-type]
    try:
        machine = start(provider, directory, "a", **changes)
        assert not machine.cloned
        assert machine.succeed("hostname").strip() == "a"
    finally:
        provider.close()
    assert not list((directory / "store" / "artifacts").glob("snapshot/*"))
    assert len(said) == 1
    return said[0]


def test_a_tainted_base_is_refused(tmp_path: Path, said: list[str]) -> None:
    why = refused(tmp_path, said, prepare=("echo 512 > /proc/sys/kernel/tainted",))
    assert "its kernel is tainted (512)" in why


SPLAT = "echo 'WARNING: made up' >/dev/kmsg"


def finds_it(_: object, log: str) -> str | None:
    return "a WARNING" if "WARNING: made up" in log else None


def test_a_splat_in_its_log_is_refused(tmp_path: Path, said: list[str]) -> None:
    why = refused(tmp_path, said, finds_it, prepare=(SPLAT,))
    assert "its log holds a splat: a WARNING" in why


@pytest.mark.parametrize(("place", "step"), [(snapshot, "wake"), (Executor, "spare")])
def test_a_splat_in_the_last_steps_is_refused(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch, place: object, step: str
) -> None:
    takes = getattr(place, step)

    async def splats(executor: Executor, *rest: object, **options: object) -> None:
        await takes(executor, *rest, **options)
        await executor.run(SPLAT, timeout=30, stdin=b"")

    monkeypatch.setattr(place, step, splats)
    assert "its log holds a splat: a WARNING" in refused(tmp_path, said, finds_it)


def test_a_torn_snapshot_is_made_again(
    provider: QemuProvider, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shape = spec("a", memory=384)
    frozen = provider.freeze(shape)
    assert frozen is not None
    with (frozen.path / "state").open("r+b") as state:
        state.truncate(1000)
    again = QemuProvider(store=Store(store().root))
    try:
        machine = again.start(shape, tmp_path / "a")
        assert machine.cloned
        assert machine.succeed("echo alive") == "alive\n"
    finally:
        again.close()
    assert "torn" in capsys.readouterr().err


def test_a_state_that_qemu_does_not_take(tmp_path: Path, said: list[str]) -> None:
    mine = QemuProvider(store=store())
    frozen = mine.freeze(spec())
    assert frozen is not None
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "memory").symlink_to(frozen.path / "memory")
    (bad / "console.log").symlink_to(frozen.path / "console.log")
    (bad / "state").write_bytes(b"rubbish" * 1000)
    mine.freeze = lambda _: replace(frozen, path=bad)  # type: ignore[method-assign]
    try:
        machine = mine.start(spec("a"), tmp_path / "a")
        assert not machine.cloned
        machine.succeed("true")
    finally:
        mine.close()
    assert "a boots cold, its clone failed" in said[0]
    assert snapshot.clonable(spec()) is None
