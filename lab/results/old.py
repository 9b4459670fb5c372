# SPDX-License-Identifier: GPL-2.0-only
"""Runs below a directory of results that may go: what is old, and neither latest nor running."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

from lab.results.merge import LATEST, RUNNING
from lab.store import Stored, is_flocked, remove_tree, tree_size

KIND = "results"

MUCH = 5 << 30
"""Bytes of results from which `lab test` says that `lab gc` takes some."""

#: As `new_run` calls them; whatever else lies there is the user's.
_RUN = re.compile(r"\d{8}-\d{6}(-[0-9a-f]{4})?")

_GOING = ".going-"


def runs(home: Path) -> list[Stored]:
    """The runs below a directory of results, and what is left of those that were taken away."""
    latest = (home / LATEST).resolve()
    now = time.time()
    return [
        Stored(
            kind=KIND,
            name=path.name.removeprefix(_GOING),
            path=path,
            size=tree_size(path),
            age=now - max(_moments(path)),
            used=path == latest or is_flocked(path / RUNNING),
        )
        for path in home.resolve().glob("*")
        if _RUN.fullmatch(path.name.removeprefix(_GOING)) and path.is_dir()
    ]


def take_away(run: Stored) -> bool:
    """Remove a run; one that began meanwhile stays.  Whether it went."""
    home = run.path.parent
    if run.path == (home / LATEST).resolve() or is_flocked(run.path / RUNNING):
        return False
    # Not half of it under its own name, should this be interrupted.
    going = home / f"{_GOING}{run.name}"
    run.path.rename(going)
    remove_tree(going)
    return True


def _moments(run: Path) -> Iterator[float]:
    """When something of a run was written, seconds since 1970; a cell may still be at work."""
    for path in (run, *run.glob("*"), *run.glob("cells/*/*")):
        yield path.lstat().st_mtime
