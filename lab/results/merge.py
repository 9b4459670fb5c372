# SPDX-License-Identifier: GPL-2.0-only
"""From the cells' results to the run's: run.json, junit.xml, report.html, latest."""

from __future__ import annotations

import fcntl
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from lab.errors import HostError, InfraError, UserError
from lab.progress import note
from lab.results.junit import write_junit
from lab.results.record import CellResult, RunResult, Untested, exit_status
from lab.results.report import write_report

LATEST = "latest"

RUNNING = ".running"
"""In a run's directory; locked as long as whoever began it lives."""

_held: list[IO[bytes]] = []

OTHER = "name another directory, as with `lab test --results`"


def see_root(root: Path) -> None:
    """See that runs can be written below a directory, before minutes are spent on one.

    Errors:
        UserError: it is no directory, or would be in none.
        HostError: it cannot be written to.
    """
    there = root
    while not os.path.lexists(there):
        there = there.parent
    if not there.is_dir():
        raise UserError("results cannot be put here: it is no directory", file=there, right=OTHER)
    if not os.access(there, os.W_OK | os.X_OK):
        raise HostError("results cannot be written here", file=there, right=OTHER)


def new_run(root: Path) -> Path:
    """Make the directory of a run that begins now; two at once get two.

    Errors:
        UserError, HostError: as `see_root`.
    """
    see_root(root)
    root.mkdir(parents=True, exist_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = root / stamp
    while True:
        try:
            path.mkdir()
        except FileExistsError:
            path = root / f"{stamp}-{secrets.token_hex(2)}"
        else:
            _hold(path)
            return path


def _hold(run: Path) -> None:
    # Until we end, however that may be.
    file = (run / RUNNING).open("wb")
    fcntl.flock(file, fcntl.LOCK_SH)
    _held.append(file)


def load_cell_result(path: Path) -> CellResult:
    """Read the results.json of a cell.

    Errors:
        InfraError: it is not there or cannot be understood.
    """
    try:
        return CellResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InfraError(f"the cell left no results: {error}", file=path) from None


def load_run(path: Path) -> RunResult:
    """Read a run.json.

    Errors:
        InfraError: it is not there or cannot be understood.
    """
    try:
        return RunResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InfraError(f"not the results of a run: {error}", file=path) from None


def merge(
    directory: Path,
    cells: Sequence[CellResult],
    *,
    command: Sequence[str],
    started: float,
    untested: Sequence[Untested] = (),
) -> RunResult:
    """Write a run's results and point `latest` at them.

    Args:
        directory: of the run.
        cells: what its cells found out.
        untested: what could not be built, or not begin.
        command: the words of the command line.
        started: seconds since 1970.
    """
    run = RunResult(
        run=directory.name,
        command=tuple(command),
        started=started,
        seconds=round(time.time() - started, 3),
        exit=_exit(cells, untested),
        cells=tuple(cells),
        untested=tuple(untested),
    )
    publish(directory / "run.json", run.model_dump_json(indent=1))
    write_junit(run, directory / "junit.xml")
    write_report(run, directory / "report.html")
    point_latest(directory)
    return run


def _exit(cells: Sequence[CellResult], untested: Sequence[Untested]) -> int:
    codes = [one.exit for one in untested]
    codes += [cell.exit for cell in cells if cell.message]
    if cells or not untested:
        codes.append(exit_status(test for cell in cells for test in cell.tests))
    return max(codes)


def publish(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    new.write_text(text, encoding="utf-8")
    new.replace(path)


def point_latest(directory: Path) -> None:
    """Let results/latest be this run, atomically; a directory of that name stays."""
    latest = directory.parent / LATEST
    new = latest.with_name(f".latest.{secrets.token_hex(4)}")
    os.symlink(directory.name, new)  # noqa: PTH211 - relative, so that results can move
    try:
        new.replace(latest)
    except IsADirectoryError:  # the run has its verdict, and this takes none away
        note(f"{latest} is no link but a directory; move it away to see the latest run there")
    finally:
        new.unlink(missing_ok=True)
