# SPDX-License-Identifier: GPL-2.0-only
"""report.html: one file that opens from disk, with no network."""

from __future__ import annotations

import time
from pathlib import Path

import jinja2

from lab.progress import seconds
from lab.results import compare, drawing
from lab.results.record import CellResult, RunResult, TestResult, count
from lab.testing.rig import checkout

#: What needs a look comes first.
_ORDER = {"kernel": 0, "failed": 1, "infra": 2, "passed": 3, "skipped": 4}
#: Bytes of a log that are folded into the report; its end, where it went wrong.
_LOG = 64 << 10
#: Failures whose logs are folded into the report: a kernel that breaks every test
#: would make it too large for a browser.
_READ = 30
#: Files of a node that are read in the report; others are only linked.
_LOGS = ("kernel.log", "console.log", "stacks.log", "qemu.log", "argv")


def write_report(run: RunResult, path: Path) -> None:
    """Write the run's report."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = seconds
    rows = [
        _Row(cell=cell, test=test, base=path.parent / "cells" / cell.name)
        for cell in run.cells
        for test in cell.tests
    ]
    rows.sort(key=lambda row: (_ORDER[row.test.status], row.cell.name, row.test.id))
    for row in rows[_READ:]:
        row.folds_logs = False
    text = environment.get_template("report.html.j2").render(
        run=run,
        home=_home(path.parent),
        rows=rows,
        columns=compare.columns(run),
        compared=compare.table(run),
        counts=count(run.tests),
        subsystems=sorted({row.test.subsystem for row in rows}),
        began=time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(run.started)),
    )
    path.write_text(text, encoding="utf-8")


def _home(directory: Path) -> Path:
    """A run's directory as it is typed in the checkout."""
    path = directory.absolute()
    return path.relative_to(checkout()) if path.is_relative_to(checkout()) else path


class _Row:
    """A test as the template sees it."""

    def __init__(self, *, cell: CellResult, test: TestResult, base: Path) -> None:
        self.cell = cell
        self.test = test
        self.base = base
        self.folds_logs = test.status not in ("passed", "skipped")

    @property
    def time_line(self) -> str:
        return drawing.time_line(self.test)

    @property
    def topology(self) -> str:
        return drawing.topology(self.test.topology) if self.test.topology else ""

    @property
    def logs(self) -> list[tuple[str, str, str]]:
        """(title, link, text) of each log; the text only where it is folded in."""
        found = []
        for node in self.test.nodes:
            for name in _LOGS:
                file = self.base / node.directory / name
                if file.is_file() and file.stat().st_size:
                    text = _tail(file) if self.folds_logs else ""
                    found.append((f"{node.name}: {name}", self._link(file), text))
        return found

    @property
    def captures(self) -> list[tuple[str, str]]:
        """(title, link) of each capture."""
        places = {(self.base / node.directory).parent for node in self.test.nodes}
        return [
            (file.name, self._link(file))
            for place in sorted(places)
            for file in sorted(place.rglob("*.pcap"))
        ]

    def _link(self, file: Path) -> str:
        top = self.base.parent.parent
        # A test may give a machine a directory of its own, which may be anywhere.
        return file.relative_to(top).as_posix() if file.is_relative_to(top) else file.as_uri()


def _tail(file: Path) -> str:
    with file.open("rb") as log:
        size = log.seek(0, 2)
        log.seek(max(0, size - _LOG))
        text = log.read().decode(errors="replace").replace("\r", "")
    return text if size <= _LOG else f"(the last {_LOG >> 10} KiB of {size >> 10})\n{text}"
