# SPDX-License-Identifier: GPL-2.0-only
"""KVM or TCG: the probe, its memory, and what is said."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lab.errors import HostError, UserError
from lab.store import Store
from lab.vm import accel
from lab.vm.reaper import users_of

LOOP = b"\xeb\xfe"  # jumps to itself


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_asked_for_tcg_probes_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "trouble_with_kvm", lambda _: pytest.fail("probed"))
    assert accel.choose("tcg", store).name == "tcg"


def test_auto_takes_what_works(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "trouble_with_kvm", lambda _: None)
    assert accel.choose("auto", store).name == "kvm"
    assert accel.choose("kvm", store).name == "kvm"


def test_trouble_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "trouble_with_kvm", lambda _: "it hangs")
    assert accel.choose("auto", store) == accel.Accel("tcg", "no KVM: it hangs")
    with pytest.raises(HostError, match="it hangs; use --accel tcg"):
        accel.choose("kvm", store)


def test_unknown(store: Store) -> None:
    with pytest.raises(UserError, match="auto, tcg or kvm"):
        accel.choose("xen", store)


def test_the_answer_is_remembered(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = ["it hangs"]
    monkeypatch.setattr(accel, "_run_payload", lambda _: answers.pop())
    monkeypatch.setattr(accel.os, "access", lambda *_: True)
    monkeypatch.setattr(accel.shutil, "which", lambda _: "/bin/true")
    if not Path("/dev/kvm").exists():
        assert accel.trouble_with_kvm(store) == "there is no /dev/kvm"
        return
    assert accel.trouble_with_kvm(store) == "it hangs"
    assert accel.trouble_with_kvm(store) == "it hangs"


@pytest.mark.parametrize(
    ("trouble", "age", "stale"),
    [("it hangs", 3600, False), ("it hangs", 90000, True), ("it hangs", -60, True),
     (None, 90000, False)],
)  # fmt: skip
def test_a_bad_answer_is_asked_again_the_next_day(
    trouble: str | None, age: float, stale: bool
) -> None:
    assert accel._is_stale({"trouble": trouble, "when": time.time() - age}) == stale


def test_an_answer_of_old_is_asked_again() -> None:
    assert accel._is_stale({"trouble": "it hangs"})


@pytest.mark.skipif(not shutil.which(accel.QEMU), reason="no QEMU")
def test_payload_ends_well_where_a_guest_runs() -> None:
    assert accel._run_payload("tcg") is None


@pytest.mark.skipif(not shutil.which(accel.QEMU), reason="no QEMU")
def test_payload_that_does_not_end_is_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "PAYLOAD", LOOP)
    monkeypatch.setattr(accel, "TIME_LIMIT", 1.0)
    assert "within 1 s" in str(accel._run_payload("tcg"))


def probes(directory: Path) -> list[int]:
    """QEMUs that use something in a directory."""
    found = []
    for pid in users_of(directory):
        with contextlib.suppress(OSError):
            if b"qemu-" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def await_(condition: Callable[[], bool], within: float) -> bool:
    deadline = time.monotonic() + within
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not shutil.which(accel.QEMU), reason="no QEMU")
def test_the_probe_ends_with_its_lab(tmp_path: Path) -> None:
    code = f"""
from lab.vm import accel
accel.PAYLOAD, accel.TIME_LIMIT = {LOOP!r}, 600.0
accel._run_payload("tcg")
"""
    places = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **places}) as lab:
        began = await_(lambda: bool(probes(tmp_path)), within=30)
        lab.kill()
    assert began
    try:
        assert await_(lambda: not probes(tmp_path), within=5)
        assert await_(lambda: not list((tmp_path / "lunatik-lab").iterdir()), within=5)
    finally:
        for pid in probes(tmp_path):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.skipif(not shutil.which(accel.QEMU), reason="no QEMU")
def test_qemu_that_refuses_is_trouble() -> None:
    assert "status 1" in str(accel._run_payload("nonsense"))
