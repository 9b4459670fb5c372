# SPDX-License-Identifier: GPL-2.0-only
"""Machines that do not come up: each is told apart, at once, with the reason."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from vm_kit import spec

from lab.errors import UserError
from lab.store import Store
from lab.vm import boot as booting
from lab.vm.boot import boot
from lab.vm.errors import (
    ConsoleFlooded,
    GuestNeverAnswered,
    GuestPanicked,
    GuestSilent,
    MachineDied,
)
from lab.vm.keep import Keep
from lab.vm.runtime import runtime


def machines() -> list[Path]:
    return [path for path in runtime().path.iterdir() if path.is_dir()]


def test_no_such_kernel(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the kernel of a is not there"):
        boot(spec(kernel=tmp_path / "none"), tmp_path)


def test_qemu_that_dies_at_start(tmp_path: Path) -> None:
    with pytest.raises(MachineDied, match=r"QEMU ended with status 1: .*no-such-cpu") as caught:
        boot(spec(cpu="no-such-cpu"), tmp_path)
    assert caught.value.exit_status == 4
    assert caught.value.reason == "qemu"
    assert not machines(), "its sockets are gone"
    assert "no-such-cpu" in (tmp_path / "argv").read_text()


def test_a_kernel_that_is_none(tmp_path: Path) -> None:
    fake = tmp_path / "bzImage"
    fake.write_bytes(b"no kernel" * 1000)
    with pytest.raises(MachineDied, match="QEMU ended with status 1"):
        boot(spec(kernel=fake), tmp_path)


def test_panic_before_init_is_noticed_at_once(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(GuestPanicked, match="Kernel panic - not syncing: "):
        boot(spec(cmdline=("init=/nowhere", "lab.none=1", "root=/dev/vdz")), tmp_path)
    assert time.monotonic() - began < booting.BOOT_TIMEOUT
    assert "VFS" in (tmp_path / "kernel.log").read_text()
    assert not machines()


def test_of_a_kept_machine_that_panicked_the_console_stays(tmp_path: Path) -> None:
    keep = Keep(Store(tmp_path))
    console = keep.root / "a" / "console.log"
    with pytest.raises(GuestPanicked, match=re.escape(f"; its console is in {console}")):
        keep.up(spec(cmdline=("init=/bin/false",)), label="")
    assert "Kernel panic" in console.read_text()
    assert keep.all() == []


def test_of_a_kept_machine_that_said_nothing_nothing_stays(tmp_path: Path) -> None:
    keep = Keep(Store(tmp_path))
    with pytest.raises(MachineDied, match="no-such-cpu"):
        keep.up(spec(cpu="no-such-cpu"), label="")
    assert [path.name for path in keep.root.iterdir()] == ["a.lock"]


def test_an_init_that_fails(tmp_path: Path) -> None:
    with pytest.raises(GuestPanicked, match="Kernel panic"):
        boot(spec(cmdline=("init=/bin/false",)), tmp_path)


def test_a_guest_that_never_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(booting, "BOOT_TIMEOUT", 2.0)
    with pytest.raises(
        GuestNeverAnswered,
        match=r"did not answer within 8 s of its start; its console "
        r"ends with: \[",
    ):
        boot(spec(cmdline=("init=/bin/sleep", "--", "1000")), tmp_path)
    assert not machines()


def test_a_guest_that_floods_its_console(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.vm.qemu.CONSOLE_LIMIT", 256 * 1024)
    # Without its rate limit, which keeps user space from just this.
    noisy = spec(cmdline=("printk.devkmsg=on",))
    line = "x" * 900
    with boot(noisy, tmp_path) as machine, pytest.raises(ConsoleFlooded, match="was ended"):
        machine.execute(f"while :; do echo {line} > /dev/kmsg; done", timeout=30)
    assert (tmp_path / "console.log").stat().st_size < 8 * 1024 * 1024


def test_an_executor_that_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.vm.executor.SILENCE", 1.0)
    with boot(spec(), tmp_path) as machine, pytest.raises(GuestSilent, match="did not answer"):
        machine.execute("kill -STOP $PPID; sleep 100", timeout=60)


def test_an_executor_that_is_killed(tmp_path: Path) -> None:
    with boot(spec(), tmp_path) as machine:
        with pytest.raises(GuestSilent, match="ended while a command ran"):
            machine.execute("kill -KILL $PPID; sleep 100", timeout=60)
        assert machine.succeed("echo on") == "on\n"
