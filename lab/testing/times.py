# SPDX-License-Identifier: GPL-2.0-only
"""How long tests took in the latest runs, so that the longest can start first.

A test takes several times as long under a sanitizer, and much less where its
machine stands already: what is known of the same cell counts before what is
known of others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import LabError
from lab.results.merge import load_run
from lab.results.record import RunResult

#: Runs that are looked at. Between two runs of everything, people run single tests;
#: to read one of 3000 tests takes a quarter of a second.
RUNS = 5


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a test is run; shards of one cell are one place."""

    kernel: str
    flavour: str
    shared: bool = False


@dataclass(frozen=True)
class Times:
    """Seconds of tests, by place and id; of nothing where there was no run."""

    known: Mapping[Place, Mapping[str, float]] = field(default_factory=dict)

    def at(self, place: Place) -> dict[str, float]:
        """What each known test is likely to take there: as it did there, else elsewhere."""
        found: dict[str, float] = {}
        for other in sorted(self.known, key=lambda other: _likeness(other, place)):
            found |= self.known[other]
        return found


def earlier_times(results: Path) -> Times:
    """What is known from the latest runs below a directory of results; newer ones count first."""
    known: dict[Place, dict[str, float]] = {}
    for file in _latest_runs(results):
        try:
            run = load_run(file)
        except LabError:
            continue
        for place, tests in times_of(run).known.items():
            known.setdefault(place, {}).update(tests)
    return Times(known)


def _latest_runs(results: Path) -> list[Path]:
    """Their run.json, the newest last: a run is called by the time when it began."""
    found = [file for file in results.glob("*/run.json") if not file.parent.is_symlink()]
    return sorted(found)[-RUNS:]


def times_of(run: RunResult) -> Times:
    """What a run tells."""
    known: dict[Place, dict[str, float]] = {}
    for cell in run.cells:
        place = Place(kernel=cell.kernel.name, flavour=cell.kernel.flavour, shared=cell.shared)
        known.setdefault(place, {}).update({test.id: test.duration for test in cell.tests})
    return Times(known)


def _likeness(one: Place, other: Place) -> tuple[bool, bool, bool]:
    """The flavour makes the greatest difference, another kernel hardly any."""
    return (
        one.flavour == other.flavour,
        one.shared == other.shared,
        one.kernel == other.kernel,
    )
