# SPDX-License-Identifier: GPL-2.0-only
"""A learning Ethernet switch, as a process of the user's own: vde_switch."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

from lab.errors import HostError, InfraError
from lab.vm.runtime import runtime

PROGRAM = "vde_switch"

#: Seconds until its socket must be there; it takes 0.01.
START_TIMEOUT = 5.0


class Switch:
    """A switch with as many ports as its LAN has nodes.

    Raises:
        HostError: vde_switch is not installed.
        InfraError: it ended at once.
    """

    def __init__(self, *, ports: int) -> None:
        program = shutil.which(PROGRAM)
        if program is None:
            raise HostError(
                f"{PROGRAM} is not installed, and a LAN needs it",
                right="install the package vde2 (lab doctor --install)",
            )
        self.path: Path = runtime().directory() / "switch"
        self._process = subprocess.Popen(
            [program, "--sock", str(self.path), "--numports", str(ports), "--mode", "600"],
            # It ends with its console, so it gets one that says nothing.
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            start_new_session=True)  # fmt: skip
        runtime().reaper.adopt(self._process.pid)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it. Stopping twice is fine."""
        if self._process.returncode is not None:
            return
        self._process.kill()
        self._process.communicate()
        runtime().reaper.forget(self._process.pid)
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT
        while not (self.path / "ctl").exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                assert self._process.stderr is not None
                self._process.kill()
                said = self._process.stderr.read().decode(errors="replace").strip()
                raise InfraError(f"{PROGRAM} did not start: {said or 'it said nothing'}")
            time.sleep(0.002)
