# SPDX-License-Identifier: GPL-2.0-only
"""What a guest that answers no more is doing: stacks, by its keyboard and by NMI."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from lab.errors import InfraError, LabError
from lab.testing.host import is_stopped
from lab.vm.machine import Machine

#: Seconds that each way to ask has to bring all it has to the console.
_WAIT = 3.0
#: Seconds for an answer of QEMU's monitor, which takes milliseconds.
_MONITOR = 10.0
#: Seconds of silence on the console after which a way has said all it has.
_QUIET = 0.4


def gather(machine: Machine, *, seen: Path) -> str:
    """Ask for all stacks; takes a few seconds at most.

    The keys of sysrq reach a kernel that still takes interrupts: l shows what
    every processor runs, w who sleeps uninterruptibly, t everybody. One that
    takes none gets an NMI, and QEMU's own view of its registers is kept.

    Args:
        machine: a machine whose QEMU runs.
        seen: its console log.

    Returns:
        The console lines that came of it, and QEMU's registers.
    """
    if machine.body.pid and is_stopped(machine.body.pid):
        return "QEMU itself is stopped\n"
    before = _size(seen)
    try:
        for key in "lwt":
            keys = [{"type": "qcode", "data": code} for code in ("alt", "sysrq", key)]
            _get(machine, seen, "send-key", **{"keys": keys, "hold-time": 50})
            if "sysrq: " not in _since(seen, before):
                _get(machine, seen, "inject-nmi")
                break
        registers = _ask(machine, "human-monitor-command", **{"command-line": "info registers -a"})
    except LabError as error:
        return f"{_since(seen, before)}--- QEMU's monitor failed: {error}\n"
    return f"{_since(seen, before)}--- registers, as QEMU sees them\n{registers}"


def _get(machine: Machine, log: Path, command: str, **arguments: object) -> None:
    """Ask, and wait until the console has all that comes of it."""
    patience = machine.spec.patience
    size = asked_at = _size(log)
    _ask(machine, command, **arguments)
    since = time.monotonic()
    deadline = since + _WAIT * patience
    while time.monotonic() < deadline:
        time.sleep(0.05)
        now = _size(log)
        if now != size:
            size, since = now, time.monotonic()
        elif size > asked_at and time.monotonic() - since > _QUIET * patience:
            return


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
