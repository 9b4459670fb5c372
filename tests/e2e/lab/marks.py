# SPDX-License-Identifier: GPL-2.0-only
"""Processes that tests find again, whoever their parents are by then."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

#: The variable that names every process of a run, whatever it does to its arguments.
MARK = "LAB_TEST_MARK"


def marked(mark: str) -> dict[int, str]:
    """Processes that were given the mark, zombies apart: pid -> command line."""
    found = {}
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


def kill_marked(mark: str) -> None:
    """End those that are left."""
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
