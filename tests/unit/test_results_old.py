# SPDX-License-Identifier: GPL-2.0-only
"""Which runs `lab gc` takes: old ones, never the latest, never one that is at work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab.results import merge, old
from lab.results.merge import new_run, point_latest
from lab.store import Store

DAY = 86400.0


def a_run(home: Path, name: str, *, days: float) -> Path:
    """A run, all of which is as old as that."""
    run = home / name
    cell = run / "cells" / "6.12-default-1"
    cell.mkdir(parents=True)
    (cell / "tests.jsonl").write_text("x" * 50_000)
    (run / "run.json").touch()
    then = time.time() - days * DAY
    for path in (*run.rglob("*"), run):
        os.utime(path, (then, then))
    return run


def collect(home: Path, **options: int) -> dict[str, bool]:
    store = Store(home.parent / "store")
    things = store.gc(
        older_than=14 * DAY, others=old.runs(home), take_other=old.take_away, **options
    )
    return {thing.name: thing.removed for thing in things}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "results"


def test_the_old_go(home: Path) -> None:
    gone, new = a_run(home, "20260101-000000", days=20), a_run(home, "20260110-000000-a0b1", days=3)
    assert collect(home) == {gone.name: True, new.name: False}
    assert [path.name for path in home.iterdir()] == [new.name]


def test_down_to_a_size_the_older_go_first(home: Path) -> None:
    first, second = a_run(home, "20260101-000000", days=2), a_run(home, "20260102-000000", days=1)
    assert collect(home, keep_bytes=100_000) == {first.name: True, second.name: False}


def test_the_latest_stays(home: Path) -> None:
    run = a_run(home, "20260101-000000", days=20)
    point_latest(run)
    assert collect(home) == {run.name: False}
    assert (home / "latest" / "run.json").exists()


def test_what_a_cell_still_writes_is_not_old(home: Path) -> None:
    """As one of `lab test --plan` that a batch engine runs later."""
    run = a_run(home, "20260101-000000", days=20)
    (run / "cells/6.12-default-1/tests.jsonl").write_text("")
    assert collect(home) == {run.name: False}


def test_a_run_at_work_stays(home: Path, tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from lab.results.merge import new_run;"
        f"print(new_run(Path({str(home)!r})), flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as lab:
        assert lab.stdout
        run = Path(lab.stdout.readline().strip())
        then = time.time() - 20 * DAY
        for path in (*run.rglob("*"), run):
            os.utime(path, (then, then))
        [found] = old.runs(home)
        assert found.used
        assert not old.take_away(found)
        lab.kill()
    assert collect(home) == {run.name: True}


def test_what_is_not_a_run_is_not_ours(home: Path) -> None:
    (home / "mine").mkdir(parents=True)
    os.utime(home / "mine", (1, 1))
    assert collect(home) == {}


def test_what_was_half_taken_away_goes_next_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_run(home, "20260101-000000", days=20)

    def interrupted(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(old, "remove_tree", interrupted)
        collect(home)
    assert collect(home) == {"20260101-000000": True}
    assert list(home.iterdir()) == []


def test_nothing_where_there_are_no_results(home: Path) -> None:
    assert collect(home) == {}


def test_a_new_run_is_held(home: Path) -> None:
    run = new_run(home)
    assert (run / merge.RUNNING).exists()
    assert [thing.used for thing in old.runs(home)] == [True]
