# SPDX-License-Identifier: GPL-2.0-only
"""Who is to blame for a silence: a QEMU that somebody stopped, and no other."""

from __future__ import annotations

import os
import signal
import subprocess
import time

from lab.testing.host import LATE, HostWatch, is_stopped


def test_a_pause_is_remembered_however_long_ago() -> None:
    watch = HostWatch()
    watch.note(100.0, LATE + 1)
    for second in range(101, 3000):
        watch.note(second, 0.01)
    assert watch.blame(since=99.0) == f"the host did not run the lab itself for {LATE + 1:.0f} s"
    assert watch.blame(since=100.5) == ""


def test_a_stopped_process_is_told_from_the_living_and_the_dead() -> None:
    process = subprocess.Popen(["sleep", "60"])
    try:
        assert not is_stopped(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert is_stopped(process.pid)
        watch = HostWatch()
        began = time.monotonic()
        assert (
            watch.blame(since=began, pids=(process.pid,)) == f"QEMU (pid {process.pid}) is stopped"
        )
    finally:
        process.kill()
    process.wait()
    assert not is_stopped(process.pid)
    assert watch.blame(since=began, pids=(process.pid,)) == ""
