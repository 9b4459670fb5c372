# SPDX-License-Identifier: GPL-2.0-only
"""A run's directories, and the end of all that lives in them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.provider import vagrant_account
from lab.provider.vagrant_account import Run, open_run, sweep
from lab.store import Store


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    monkeypatch.setattr(vagrant_account.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(vagrant_account.tempfile, "gettempdir", lambda: str(tmp_path))
    opened = open_run(Store(tmp_path / "store"))
    yield opened
    opened.end()


@pytest.mark.parametrize("variable", ["HOME", "XDG_RUNTIME_DIR"])
def test_a_daemon_ends_with_its_run(run: Run, variable: str) -> None:
    home = run.home if variable == "HOME" else run.short
    daemon = subprocess.Popen(["sleep", "600"], env={variable: str(home)}, start_new_session=True)
    other = subprocess.Popen(["sleep", "600"], env={variable: f"{home}x"}, start_new_session=True)
    try:
        wait_until_started(daemon)
        run.end()
        assert daemon.wait(timeout=5) == -9
        assert other.poll() is None
        assert not run.home.exists()
        assert not run.short.exists()
    finally:
        other.kill()
        other.wait()


def test_two_runs_share_nothing_but_boxes(run: Run, tmp_path: Path) -> None:
    other = open_run(Store(tmp_path / "store"))
    try:
        assert {run.home, run.short}.isdisjoint({other.home, other.short})
        assert run.account.vagrant_home == other.account.vagrant_home
    finally:
        other.end()


def test_sockets_fit_into_107_bytes(run: Run) -> None:
    longest = run.short / "c/libvirt/qemu/lib/domain-10-lunatik-01234567-m1/monitor.sock"
    assert len(os.fsencode(f"/tmp/{longest.relative_to(run.short.parent)}")) < 107


def test_what_two_killed_processes_left_is_swept(run: Run, tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = run.home.with_name(f"v-{dead.pid}-abcdef")
    left.mkdir()
    os.chown(left, 1000, -1) if os.getuid() == 0 else None
    assert left in sweep(run.home.parent)
    assert not left.exists()
    assert run.home.exists()


def wait_until_started(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if b"sleep" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
            return
        time.sleep(0.01)
