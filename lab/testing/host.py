# SPDX-License-Identifier: GPL-2.0-only
"""Whether the host was too busy to blame a guest for being slow."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path

#: Seconds between two looks at the clock.
_TICK = 0.25
#: A sleep that ends this much late (seconds) was a host that did not run us.
LATE = 5.0
#: Late ones that are remembered.
_KEPT = 240


class HostWatch:
    """A thread that notes when the host kept us from running."""

    def __init__(self) -> None:
        self._late: deque[tuple[float, float]] = deque(maxlen=_KEPT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="host-watch", daemon=True)

    def start(self) -> None:
        """Begin to look at the clock."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join(timeout=2)

    def _watch(self) -> None:
        while not self._stop.is_set():
            before = time.monotonic()
            self._stop.wait(_TICK)
            now = time.monotonic()
            self.note(now, now - before - _TICK)

    def note(self, when: float, late: float) -> None:
        """Remember a look at the clock (monotonic) if it came so late that it is to blame."""
        if late > LATE:
            self._late.append((when, late))

    def blame(self, *, since: float, pids: tuple[int, ...] = ()) -> str:
        """Why the host is to blame for a silence since then (monotonic), or ""."""
        worst = max((late for when, late in tuple(self._late) if when >= since), default=0.0)
        if worst:
            return f"the host did not run the lab itself for {worst:.0f} s"
        for pid in pids:
            if is_stopped(pid):
                return f"QEMU (pid {pid}) is stopped"
        return ""


def process_state(pid: int) -> str:
    """The state letter of a process, "" where there is none."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
    # The name stands in parentheses and may hold anything.
    return stat.rpartition(")")[2].split()[0]


def is_stopped(pid: int) -> bool:
    """Whether somebody stopped a process (SIGSTOP, a debugger); one that is gone is not."""
    return process_state(pid) in ("T", "t")


def memory_total() -> int:
    """MiB of memory that the host has; that of our cgroup if it is less."""
    total = 0
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) // 1024
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return total
    return min(total, int(limit) >> 20) if limit.isdigit() else total
