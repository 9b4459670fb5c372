# SPDX-License-Identifier: GPL-2.0-only
"""The longest test starts first, by what it took in a run like this one."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from lab.results.merge import merge
from lab.results.record import CellResult, HostFacts, KernelFacts, TestResult
from lab.testing import plugin
from lab.testing.cell import Cell
from lab.testing.times import RUNS, Place, Times, earlier_times


def cell(kernel: str, flavour: str, seconds: dict[str, float], *, shared: bool) -> CellResult:
    tests = tuple(
        TestResult(id=test, status="passed", exit=0, duration=duration)
        for test, duration in seconds.items()
    )
    return CellResult(
        name=f"{kernel}-{flavour}-{'shared' if shared else 1}",
        kernel=KernelFacts(name=kernel, version=f"{kernel}.1", flavour=flavour, key="k"),
        modules_key=None, modules={}, image_key="i", provider="qemu", accel="tcg", workers=0,
        shared=shared,
        host=HostFacts(system="Linux", python="3", qemu="QEMU 7.2", cpus=2, memory=1024),
        started=0.0, seconds=2.0, exit=0, tests=tests,
    )  # fmt: skip


@pytest.fixture
def times(tmp_path: Path) -> Times:
    """What a run of several kernels leaves to the next."""
    directory = tmp_path / "20260101-000000"
    directory.mkdir()
    cells = [
        cell("6.12", "default", {"a": 1.0, "b": 2.0}, shared=False),
        cell("6.12", "debug", {"a": 10.0}, shared=False),
        cell("6.12", "debug", {"a": 5.0}, shared=True),
        cell("7.3", "default", {"a": 1.5, "c": 3.0}, shared=False),
    ]
    merge(directory, cells, command=("lab", "test"), started=0.0)
    return earlier_times(tmp_path)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (Place(kernel="6.12", flavour="default"), 1.0),
        (Place(kernel="6.12", flavour="debug"), 10.0),
        (Place(kernel="6.12", flavour="debug", shared=True), 5.0),
        (Place(kernel="7.3", flavour="default"), 1.5),
        (Place(kernel="6.1", flavour="debug"), 10.0),
    ],
)
def test_each_cell_has_its_own(times: Times, place: Place, expected: float) -> None:
    assert times.at(place)["a"] == expected


def test_what_one_cell_does_not_know_another_does(times: Times) -> None:
    known = times.at(Place(kernel="6.12", flavour="debug"))
    assert known == {"a": 10.0, "b": 2.0, "c": 3.0}


def leave_run(results: Path, name: str, **seconds: float) -> None:
    (results / name).mkdir()
    cells = [cell("6.12", "default", seconds, shared=False)]
    merge(results / name, cells, command=("lab", "test"), started=0.0)


def test_a_run_of_one_test_does_not_forget_the_others(tmp_path: Path) -> None:
    leave_run(tmp_path, "20260101-000000", a=1.0, b=2.0, c=3.0)
    leave_run(tmp_path, "20260102-000000", b=9.0)
    (tmp_path / "20260103-000000").mkdir()  # it was interrupted
    (tmp_path / "20260104-000000").mkdir()
    (tmp_path / "20260104-000000" / "run.json").write_text("{}")
    known = earlier_times(tmp_path).at(Place(kernel="6.12", flavour="default"))
    assert known == {"a": 1.0, "b": 9.0, "c": 3.0}


def test_only_so_many_runs_are_looked_at(tmp_path: Path) -> None:
    for number in range(RUNS + 1):
        leave_run(tmp_path, f"202601{number:02}-000000", **{f"t{number}": 1.0})
    known = earlier_times(tmp_path).at(Place(kernel="6.12", flavour="default"))
    assert set(known) == {f"t{number}" for number in range(1, RUNS + 1)}


def test_where_there_was_no_run_nothing_is_known(tmp_path: Path) -> None:
    place = Place(kernel="6.12", flavour="debug")
    assert earlier_times(tmp_path).at(place) == {}
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "run.json").write_text(json.dumps({"old": "format"}))
    assert earlier_times(tmp_path).at(place) == {}


def test_the_longest_starts_first(tmp_path: Path) -> None:
    file = tmp_path / "cell.json"
    Cell(
        run="r", name="c", kernel="k", image="i", flavour="debug",
        times={"quick": 0.5, "long": 90.0, "middling": 7.0},
    ).save(file)  # fmt: skip
    config: Any = SimpleNamespace(getoption=lambda _: str(file))
    names = ("new", "quick", "middling", "other", "long")
    items: Any = [Mock(nodeid=name) for name in names]
    plugin.pytest_collection_modifyitems(config, items)
    # What was never seen comes last, in the order of the files.
    assert [item.nodeid for item in items] == ["long", "middling", "quick", "new", "other"]
