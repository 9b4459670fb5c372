# SPDX-License-Identifier: GPL-2.0-only
"""How QEMU ends, told by what it says: no guest runs here."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

import pytest

from lab.errors import HostError, InfraError, LabError
from lab.vm import loop
from lab.vm import qemu as qemus
from lab.vm.argv import Places
from lab.vm.errors import MachineDied
from lab.vm.qemu import Qemu


def end_of(tmp_path: Path, said: str) -> LabError:
    """What becomes of a QEMU that says something and ends."""
    argv = ["sh", "-c", 'echo "$0" >&2; exit 1', said]
    qemu = Qemu(node="a", argv=argv, places=Places(directory=tmp_path, runtime=tmp_path / "run"))
    try:
        with pytest.raises(LabError) as caught:
            loop.call(qemu.start())
    finally:
        qemu.stop()
    return caught.value


@pytest.mark.parametrize(
    "said",
    [
        # Seen with QEMU 7.2 under prlimit --as.
        "qemu-system-x86_64: cannot set up guest memory 'pc.ram': Cannot allocate memory",
        "qemu-system-x86_64: unable to map backing store for guest RAM: Cannot allocate memory",
        "qemu-system-x86_64: -accel tcg: allocate 1073741824 bytes for jit buffer: "
        "Cannot allocate memory",
        "GLib: ../glib/gmem.c:134: failed to allocate 16777216 bytes",
    ],
)
def test_refused_memory_is_the_hosts_fault(tmp_path: Path, said: str) -> None:
    error = end_of(tmp_path, said)
    assert isinstance(error, HostError)
    assert error.exit_status == 3
    assert error.what == f"a: the host has no memory for it: {said}"


def test_other_ends_are_not(tmp_path: Path) -> None:
    error = end_of(tmp_path, "qemu-system-x86_64: unable to find CPU model 'no-such-cpu'")
    assert isinstance(error, MachineDied)
    assert error.exit_status == 4


def test_a_machine_is_stopped_once(tmp_path: Path) -> None:
    argv = ["sleep", "60"]
    qemu = Qemu(node="a", argv=argv, places=Places(directory=tmp_path, runtime=tmp_path / "run"))
    with pytest.raises(TimeoutError):
        # It opens no monitor.
        loop.call(asyncio.wait_for(qemu.start(), timeout=0.1))
    assert not qemu.stopped
    qemu.stop()
    assert qemu.stopped
    log = tmp_path / "kernel.log"
    log.write_text("a person's notes")
    qemu.stop()
    assert log.read_text() == "a person's notes"


def test_a_monitor_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """QEMU has opened it and was stopped then, or waits for a disk."""
    monkeypatch.setattr(qemus, "MONITOR_TIMEOUT", 0.3)
    places = Places(directory=tmp_path, runtime=tmp_path / "run")
    places.monitor.parent.mkdir(parents=True)
    qemu = Qemu(node="a", argv=["sleep", "60"], places=places)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(places.monitor))
        listener.listen()
        with pytest.raises(InfraError, match=r"a: QEMU's monitor said nothing for 0\.3 s"):
            loop.call(asyncio.wait_for(qemu.start(), timeout=10))
    qemu.stop()


def test_who_ends_while_its_monitor_is_awaited(tmp_path: Path) -> None:
    places = Places(directory=tmp_path, runtime=tmp_path / "run")
    places.monitor.parent.mkdir(parents=True)
    argv = ["sh", "-c", "sleep 0.3; echo gone >&2; exit 1"]
    qemu = Qemu(node="a", argv=argv, places=places)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(places.monitor))
        listener.listen()
        with pytest.raises(MachineDied, match="gone"):
            loop.call(asyncio.wait_for(qemu.start(), timeout=10))
    qemu.stop()


def test_a_full_disk_keeps_no_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    qemu = Qemu(node="a", argv=["sleep", "60"],
                places=Places(directory=tmp_path, runtime=tmp_path / "run"))  # fmt: skip
    with pytest.raises(TimeoutError):
        loop.call(asyncio.wait_for(qemu.start(), timeout=0.1))

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(qemu, "write_kernel_log", full)
    with pytest.raises(OSError, match="No space left"):
        qemu.stop()
    assert qemu.stopped
    assert not qemu.alive()
