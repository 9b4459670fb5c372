# SPDX-License-Identifier: GPL-2.0-only
"""Run one cell: one pytest process, from the store and the checkout."""

from __future__ import annotations

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from lab.results.bundle import make_bundles
from lab.results.merge import publish
from lab.results.record import (
    CellResult,
    HostFacts,
    KernelFacts,
    Patch,
    TestResult,
    exit_status,
    summary,
)
from lab.store import Store
from lab.testing.cell import Cell, load_cell
from lab.testing.host import memory_total
from lab.testing.orphan import PARENT
from lab.testing.rig import Rig, checkout, root_of
from lab.vm import argv
from lab.vm.snapshot import qemu_version

#: Seconds that pytest has to end its machines after an interrupt.
_GRACE = 30.0

#: pytest's statuses: interrupted, an error of its own, no test found.
_INTERRUPTED, _CRASHED, _NOTHING = 2, 3, 5

#: pytest's own statuses that say something about the cell as a whole.
_TROUBLE = {
    _INTERRUPTED: (4, "pytest was interrupted"),
    _CRASHED: (4, "pytest failed in itself"),
    4: (2, "pytest refused its arguments"),
    _NOTHING: (2, ""),
}


def run_cell(path: Path, *, output: IO[str] | None = None) -> CellResult:
    """Run the cell in a file; its results land beside the file.

    Args:
        output: where pytest's words go; to our own standard output if left out.

    Errors:
        UserError: the file is no cell, or its artifacts are not in the store.
        HostError: QEMU is not there.
    """
    cell = load_cell(path)
    rig = Rig(cell, Store())
    qemu = qemu_version(argv.program())
    started = time.time()
    # Verdicts of an earlier run of the same file must not pass for this one's.
    for name in ("tests.jsonl", "results.json"):
        path.with_name(name).unlink(missing_ok=True)
    status = _pytest(cell, path.resolve(), output)
    tests = make_bundles(_read_tests(path.parent / "tests.jsonl"), rig=rig, cell_file=path)
    code, message = _judge(status, tests, shared=cell.shared)
    result = CellResult(
        name=cell.name,
        kernel=_kernel_facts(rig),
        modules_key=cell.modules,
        modules=dict(rig.modules.files) if rig.modules else {},
        image_key=cell.image,
        provider=cell.provider,
        accel=rig.accel,
        workers=cell.workers,
        shared=cell.shared,
        host=HostFacts(
            system=platform.platform(),
            python=platform.python_version(),
            qemu=qemu,
            cpus=len(os.sched_getaffinity(0)),
            memory=memory_total(),
        ),
        started=started,
        seconds=round(time.time() - started, 3),
        exit=code,
        message=message,
        tests=tests,
    )
    publish(path.parent / "results.json", result.model_dump_json(indent=1))
    return result


def line(result: CellResult) -> str:
    """One line about a cell, as pytest would write it."""
    return summary(result.tests, seconds=result.seconds)


def _pytest(cell: Cell, path: Path, output: IO[str] | None) -> int:
    root = checkout()
    # The kernel ends it with us, even while it still imports; end_if_orphaned()
    # is for us having died before setpriv got there.
    python = ["setpriv", "--pdeathsig", "KILL", sys.executable]
    words = [*python, "-m", "pytest", "-p", "lab.testing.plugin", "--lab-cell", str(path)]
    words += ["--rootdir", str(root_of(cell.tests, root)), "-c", str(root / "pyproject.toml")]
    # Files of tests may have the same name, and the checkout stays as it is.
    words += ["-p", "no:cacheprovider", "--import-mode=importlib"]
    if cell.workers:
        # The workers end with pytest in the same way: execnet alone lets one that
        # still imports go on for five seconds after its pipe is closed.
        words += ["--tx", f"{cell.workers}*popen//python={shlex.join(python)}"]
        # One at a time, so that the order (longest first) holds for all workers.
        words += ["--dist", "load", "--maxschedchunk", "1"]
    else:
        words += ["-p", "no:xdist"]
    # A session of its own: Ctrl-C comes once, from us.
    process = subprocess.Popen(
        [*words, *cell.options, *cell.tests],
        cwd=root,
        stdout=output,
        start_new_session=True,
        env={**os.environ, PARENT: str(os.getpid())},
    )
    try:
        return process.wait()
    except BaseException:
        _end(process)
        raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt pytest, so that it ends its machines; then more firmly."""
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            os.killpg(process.pid, number)
            process.wait(_GRACE)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_tests(path: Path) -> tuple[TestResult, ...]:
    if not path.exists():
        return ()
    tests = []
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            tests.append(TestResult.model_validate(json.loads(text)))
        except (ValueError, ValidationError):
            # The last line of a pytest that was killed may be half there.
            continue
    return tuple(sorted(tests, key=lambda test: test.id))


def _judge(status: int, tests: tuple[TestResult, ...], *, shared: bool) -> tuple[int, str]:
    """The cell's exit status, and what is wrong with the cell as a whole."""
    if shared and status == _NOTHING:
        return 0, ""  # whether no test was meant at all is told by the cell before
    if status < 0:
        return 4, f"pytest was ended by signal {-status}"
    if status == _CRASHED and tests:
        return 4, "pytest failed in itself; the tests after that were not run"
    if not tests or (status == _INTERRUPTED and all(test.exit == 0 for test in tests)):
        return _TROUBLE.get(status, (4, f"pytest ended with {status} and left no results"))
    code = exit_status(tests)
    if status == 1 and all(test.exit == 0 for test in tests):
        return 4, "pytest saw a failure that no test's result shows"
    return code, ""


def _kernel_facts(rig: Rig) -> KernelFacts:
    said = json.loads(rig.kernel.build_json.read_text(encoding="utf-8"))
    return KernelFacts(
        name=rig.kernel.name,
        version=rig.kernel.version,
        flavour=rig.kernel.flavour,
        key=rig.kernel.key,
        compiler=said.get("toolchain", {}).get("cc", ""),
        patches=tuple(
            Patch(name=patch["name"], sha256=patch["sha256"]) for patch in said.get("patches", ())
        ),
    )
