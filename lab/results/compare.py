# SPDX-License-Identifier: GPL-2.0-only
"""Tests by kernels: where the same test ended differently."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lab.results.record import RANK, CellResult, RunResult, Status

SHOWN = 20
"""Differences that a terminal is told; the report has them all."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One test on every kernel of a run.

    Attributes:
        statuses: by column; a column that did not run the test is left out.
    """

    test: str
    statuses: Mapping[str, Status]

    @property
    def differs(self) -> bool:
        """Whether it matters which kernel it was."""
        return len(set(self.statuses.values())) > 1

    @property
    def worst(self) -> int:
        """How bad the worst status is."""
        return max(RANK[status] for status in self.statuses.values())

    def __str__(self) -> str:
        by_status: dict[Status, list[str]] = {}
        for column, status in self.statuses.items():
            by_status.setdefault(status, []).append(column)
        parts = (f"{status} on {', '.join(names)}" for status, names in by_status.items())
        return f"{self.test}: {'; '.join(parts)}"


def column(cell: CellResult) -> str:
    """A kernel and flavour; all shards of it, but not its shared machine."""
    return f"{cell.kernel.name} {cell.kernel.flavour}" + (" shared" if cell.shared else "")


def columns(run: RunResult) -> list[str]:
    """The kernels and flavours of a run, in its order."""
    return list(dict.fromkeys(column(cell) for cell in run.cells))


def table(run: RunResult) -> list[Row]:
    """Every test: those that differ first, of them the worst; then what failed everywhere."""
    found: dict[str, dict[str, Status]] = {}
    for cell in run.cells:
        for test in cell.tests:
            found.setdefault(test.id, {})[column(cell)] = test.status
    rows = [Row(test=test, statuses=statuses) for test, statuses in found.items()]
    return sorted(rows, key=lambda row: (not row.differs, -row.worst, row.test))


def differences(run: RunResult, *, shown: int = SHOWN) -> Iterator[str]:
    """A line for each test that did not end the same on every kernel that ran it."""
    rows = [row for row in table(run) if row.differs]
    yield from (f"differs: {row}" for row in rows[:shown])
    if len(rows) > shown:
        yield f"and {len(rows) - shown} more that differ"
