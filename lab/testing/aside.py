# SPDX-License-Identifier: GPL-2.0-only
"""Build a stage in a process of its own, while tests run in ours."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from lab.errors import HostError, InfraError, KernelError, LabError, UserError
from lab.process import end_group
from lab.progress import note, seconds
from lab.testing.stages import Stage, Wanted

_TICK = 0.1

_KINDS: dict[int, type[LabError]] = {
    kind.exit_status: kind for kind in (KernelError, UserError, HostError)
}


def build_aside(stage: Stage, wanted: Wanted, log: Path, stop: threading.Event) -> None:
    """Build kernel and modules of a stage into the store; all that is said goes to a log.

    Errors:
        LabError: of the kind that the build itself would have raised.
    """
    began = time.monotonic()
    note(f"build {stage.name} beside the tests: {log}")
    status = _run(words_for(stage, wanted), log, stop)
    if stop.is_set():
        return
    if status != 0:
        note(f"build {stage.name}: failed after {seconds(time.monotonic() - began)}")
        raise error_of(status, log.read_text(errors="replace"), log)
    note(f"build {stage.name}: done in {seconds(time.monotonic() - began)}")


def words_for(stage: Stage, wanted: Wanted) -> list[str]:
    """The command that builds a stage."""
    words = ["modules", "build", "--kernel", stage.kernel, "--flavour", stage.recipe.flavour]
    if wanted.patches is not None:
        for name in wanted.patches or ("none",):
            words += ["--patches", name]
    if wanted.config is not None:
        words += ["--config", str(wanted.config)]
    for path in wanted.modules:
        words += ["--module", str(path)]
    if wanted.llvm:
        words.append("--llvm")
    return words


def error_of(status: int, said: str, log: Path) -> LabError:
    """What a build's last words and exit status mean."""
    start = said.rfind("\nlab: ") + 1
    what = said[start:].strip().removeprefix("lab: ") or "it said nothing"
    kind = _KINDS.get(status, InfraError)
    if status < 0:
        what = f"it was ended by signal {-status}"
    return kind(what) if str(log) in what else kind(what, right=f"all it said: {log}")


def _run(words: Sequence[str], log: Path, stop: threading.Event) -> int:
    log.parent.mkdir(parents=True, exist_ok=True)
    # The signal comes when the thread that started it is gone; ours waits here.
    command = ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "lab", *words]
    with log.open("wb") as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        try:
            while process.poll() is None:
                if stop.wait(_TICK):
                    break
        finally:
            end_group(process)
    return process.returncode
