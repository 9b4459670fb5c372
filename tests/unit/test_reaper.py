# SPDX-License-Identifier: GPL-2.0-only
"""The reaper and the sweep, on real processes that only look like QEMU."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.vm import reaper, runtime
from lab.vm.reaper import Reaper

LIMIT = 5.0  # seconds that the design gives the reaper

LAB = """
import subprocess, sys, time
from pathlib import Path
from lab.vm.runtime import runtime
mine = runtime()
place = mine.directory()
told = subprocess.Popen([sys.argv[1], "600", f"{place}/x"], start_new_session=True)
mine.reaper.adopt(told.pid)
untold = subprocess.Popen([sys.argv[1], "600", f"{place}/y"], start_new_session=True)
print(mine.reaper.pid, told.pid, untold.pid, mine.path, flush=True)
time.sleep(600)
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return runtime.base()


@pytest.fixture
def fake_qemu(tmp_path: Path) -> Path:
    """A program that sleeps, whatever its further arguments, under a fitting name."""
    program = tmp_path / "qemu-sleep"
    program.write_text("#!/bin/sh\nwhile :; do sleep 0.2; done\n")
    shell = tmp_path / "qemu-sh"
    shutil.copy("/bin/sh", shell)
    program.write_text(f"#!{shell}\nwhile :; do sleep 0.2; done\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "600"], start_new_session=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def gone(pid: int, within: float = LIMIT) -> bool:
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if reaper.start_time(pid) is None:
            return True
        time.sleep(0.02)
    return False


def vanished(path: Path, within: float = LIMIT) -> bool:
    deadline = time.monotonic() + within
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not path.exists()


def test_start_time_tells_processes_apart(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    first = sleeper()
    time.sleep(0.05)
    second = sleeper()
    assert reaper.start_time(first.pid) != reaper.start_time(second.pid)
    first.kill()
    time.sleep(0.1)
    assert reaper.start_time(first.pid) is None, "a zombie is as good as gone"


def test_kill_spares_a_reused_pid(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    process = sleeper()
    started = reaper.start_time(process.pid)
    assert started is not None
    assert not reaper.kill(process.pid, started - 1)
    assert process.poll() is None
    assert reaper.kill(process.pid, started)
    assert process.wait(LIMIT) == -signal.SIGKILL


def test_close_settles(tmp_path: Path, sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    mine, spared = sleeper(), sleeper()
    place = tmp_path / "sockets"
    place.mkdir()
    (place / "qmp").touch()
    watcher = Reaper()
    watcher.adopt(mine.pid)
    watcher.adopt(spared.pid)
    watcher.forget(spared.pid)
    watcher.adopt_directory(place)
    watcher.close()
    assert mine.wait(LIMIT) == -signal.SIGKILL
    assert spared.poll() is None
    assert not place.exists()


def test_a_dead_reaper_does_not_take_the_lab_with_it(
    sleeper: Callable[[], subprocess.Popen[bytes]],
) -> None:
    watcher = Reaper()
    os.kill(watcher.pid, signal.SIGKILL)
    time.sleep(0.1)
    for _ in range(3):
        watcher.adopt(sleeper().pid)
    watcher.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_death_of_the_lab(base: Path, fake_qemu: Path, number: signal.Signals) -> None:
    lab = subprocess.Popen(
        [sys.executable, "-c", LAB, str(fake_qemu)],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert lab.stdout is not None
    words = lab.stdout.readline().split()
    watcher, told, untold = (int(word) for word in words[:3])
    place = Path(words[3])
    assert place.parent == base
    # The whole group, as Ctrl-C does.
    os.killpg(lab.pid, number)
    lab.wait(LIMIT)
    assert gone(told), "a process that the reaper was told of"
    assert gone(untold), "a process that its lab had no time to tell of"
    assert vanished(place)
    assert gone(watcher), "the reaper itself"


def test_sweep_after_both_died(base: Path, fake_qemu: Path) -> None:
    lab = subprocess.Popen(
        [sys.executable, "-c", LAB, str(fake_qemu)], stdout=subprocess.PIPE, text=True
    )
    assert lab.stdout is not None
    words = lab.stdout.readline().split()
    watcher, told, untold = (int(word) for word in words[:3])
    os.kill(watcher, signal.SIGKILL)
    lab.kill()
    lab.wait()
    assert reaper.start_time(told) is not None
    assert runtime.sweep() == [Path(words[3])]
    assert gone(told)
    assert gone(untold)
    assert not list(base.iterdir())


def test_settle_waits_until_it_can_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A lab may die while what it has started is in the middle of exec()."""
    process = sleeper()
    looks = iter([[process.pid], [], []])
    users = iter([[], [process.pid], []])
    monkeypatch.setattr(reaper, "unborn", lambda: next(looks))
    monkeypatch.setattr(reaper, "users_of", lambda _: next(users))
    estate = reaper.Estate()
    estate.directories.add(tmp_path / "sockets")
    estate.settle()
    assert process.wait(LIMIT) == -signal.SIGKILL


def test_nobody_is_unborn_for_long(sleeper: Callable[[], subprocess.Popen[bytes]]) -> None:
    born = [sleeper().pid for _ in range(3)]
    time.sleep(0.1)
    assert not set(reaper.unborn()) & {*born, os.getpid()}


def test_sweep_spares_the_living_and_the_kept(base: Path) -> None:
    living = base / f"{os.getpid()}-abc"
    living.mkdir()
    kept = base / "up-0123456789"
    kept.mkdir()
    assert runtime.sweep() == []
    assert living.exists()
    assert kept.exists()


def test_sweep_ends_what_was_not_up_yet(base: Path, fake_qemu: Path) -> None:
    """`lab up` and its reaper were killed while the machine booted: nobody knows of it."""
    place = base / "up-0123456789"
    place.mkdir()
    (place / "owner").write_text(f"{os.getpid()} 1\n")
    process = subprocess.Popen([str(fake_qemu), f"{place}/monitor"])
    try:
        assert runtime.sweep() == [place]
        assert process.wait(LIMIT) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


def test_sweep_knows_a_reused_pid(base: Path) -> None:
    stale = base / f"{os.getpid()}-abc"
    stale.mkdir()
    (stale / "owner").write_text(f"{os.getpid()} 1\n")
    assert runtime.sweep() == [stale]


def test_base_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / "lunatik-lab").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(HostError, match="belongs to another user"):
        runtime.base()
