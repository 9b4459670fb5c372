# SPDX-License-Identifier: GPL-2.0-only
"""What a guest that answers no more is doing: stacks, by its keyboard and by NMI."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lab.errors import InfraError, LabError
from lab.testing.host import is_stopped
from lab.vm.machine import Machine

#: Seconds that each way to ask has to bring something to the console.
_WAIT = 3.0
#: Seconds for an answer of QEMU's monitor, which takes milliseconds.
_MONITOR = 10.0
#: Seconds of silence on the console after which a way has said all it has.
_QUIET = 0.4


@dataclass(frozen=True, kw_only=True)
class Stacks:
    """What the guest's kernel said when it was asked for its stacks.

    Attributes:
        text: console lines that came of it, and QEMU's registers.
        kernel_answered: whether the kernel could still answer an interrupt.
    """

    text: str
    kernel_answered: bool


def gather(machine: Machine, *, seen: Path) -> Stacks:
    """Ask for all stacks; takes a few seconds at most.

    The keys of sysrq reach a kernel that still takes interrupts: l shows what
    every processor runs, w who sleeps uninterruptibly, t everybody. One that
    takes none gets an NMI, and QEMU's own view of its registers is kept.

    Args:
        machine: a machine whose QEMU runs.
        seen: its console log.
    """
    if machine.body.pid and is_stopped(machine.body.pid):
        return Stacks(text="QEMU itself is stopped\n", kernel_answered=False)
    before = _size(seen)
    parts = []
    try:
        for key in "lwt":
            keys = [{"type": "qcode", "data": code} for code in ("alt", "sysrq", key)]
            _ask(machine, "send-key", **{"keys": keys, "hold-time": 50})
            _wait_quiet(seen, patience=machine.spec.patience)
        answered = "sysrq: " in _since(seen, before)
        if not answered:
            _ask(machine, "inject-nmi")
            _wait_quiet(seen, patience=machine.spec.patience)
        registers = _ask(machine, "human-monitor-command", **{"command-line": "info registers -a"})
        parts = [_since(seen, before), "--- registers, as QEMU sees them\n", str(registers)]
    except LabError as error:
        answered = False
        parts = [_since(seen, before), f"--- QEMU's monitor failed: {error}\n"]
    return Stacks(text="".join(parts), kernel_answered=answered)


def _ask(machine: Machine, command: str, **arguments: object) -> object:
    """One monitor command, given up when QEMU does not answer either."""
    answer: list[object] = []
    failure: list[LabError] = []

    def ask() -> None:
        try:
            answer.append(machine.body.monitor(command, **arguments))
        except LabError as error:
            failure.append(error)

    thread = threading.Thread(target=ask, name="ask-monitor", daemon=True)
    thread.start()
    thread.join(_MONITOR)
    if failure:
        raise failure[0]
    if not answer:
        raise InfraError(f"{machine.name}: QEMU's monitor did not answer within {_MONITOR:g} s")
    return answer[0]


def _wait_quiet(log: Path, *, patience: float) -> None:
    deadline = time.monotonic() + _WAIT * patience
    size, since = _size(log), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = _size(log)
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > _QUIET:
            return


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except OSError:
        return 0


def _since(log: Path, offset: int) -> str:
    try:
        with log.open("rb") as file:
            file.seek(offset)
            return file.read(4 << 20).decode(errors="replace").replace("\r", "")
    except OSError:
        return ""
