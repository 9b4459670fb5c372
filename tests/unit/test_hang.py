# SPDX-License-Identifier: GPL-2.0-only
"""Stacks of a guest that answers no more: by keys while it hears them, else by an NMI."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.testing import hang


class Deaf:
    """A machine whose kernel answers keys and NMIs so many seconds late, or never."""

    name = "m"

    def __init__(self, log: Path, *, key: float | None, nmi: float | None) -> None:
        self.log, self.late = log, {"send-key": key, "inject-nmi": nmi}
        self.asked: list[str] = []
        self.spec = SimpleNamespace(patience=1.0)
        self.body = SimpleNamespace(pid=None, monitor=self.monitor)
        log.write_text("[    0.1] Linux version\n")

    def monitor(self, command: str, **arguments: Any) -> str:
        """As QEMU's."""
        keys = arguments.get("keys")
        self.asked.append(keys[-1]["data"] if keys else command)
        late = self.late.get(command)
        if late is not None:
            said = "sysrq: Show" if keys else "NMI backtrace for cpu 0"
            threading.Timer(late, self.say, [f"[    9.0] {said} {self.asked[-1]}\n"]).start()
        return "RIP=ffffffff81000000\n"

    def say(self, text: str) -> None:
        """Onto the console."""
        with self.log.open("a") as log:
            log.write(text)


@pytest.mark.parametrize("late", [0.0, 0.8])
def test_waits_for_what_a_slow_guest_says(tmp_path: Path, late: float) -> None:
    machine: Any = Deaf(tmp_path / "console.log", key=late, nmi=None)
    text = hang.gather(machine, seen=machine.log)
    assert machine.asked == ["l", "w", "t", "human-monitor-command"]
    for key in "lwt":
        assert f"sysrq: Show {key}\n" in text
    assert text.endswith("RIP=ffffffff81000000\n")
    assert "Linux version" not in text


def test_who_hears_no_key_gets_an_nmi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hang, "_WAIT", 0.5)
    machine: Any = Deaf(tmp_path / "console.log", key=None, nmi=0.1)
    assert "NMI backtrace" in hang.gather(machine, seen=machine.log)
    # The other keys would not be heard either.
    assert machine.asked == ["l", "inject-nmi", "human-monitor-command"]


def test_more_patience_is_had_with_a_slower_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hang, "_WAIT", 0.3)
    machine: Any = Deaf(tmp_path / "console.log", key=0.5, nmi=None)
    machine.spec.patience = 4.0
    assert "sysrq: Show t" in hang.gather(machine, seen=machine.log)
