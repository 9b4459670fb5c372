# SPDX-License-Identifier: GPL-2.0-only
"""Tests by kernels: differences first."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab.commands.test import run_cells
from lab.errors import UserError
from lab.results.compare import columns, differences, table
from lab.results.junit import write_junit
from lab.results.merge import load_run, merge, new_run
from lab.results.record import (
    EXIT,
    CellResult,
    HostFacts,
    KernelFacts,
    RunResult,
    Status,
    TestResult,
    Untested,
)
from lab.results.report import write_report
from lab.testing import running


def cell(
    kernel: str, *, flavour: str = "default", shared: bool = False, **tests: Status
) -> CellResult:
    return CellResult(
        name=f"{kernel}-{flavour}-1",
        kernel=KernelFacts(name=kernel, version=f"{kernel}.1", flavour=flavour, key="k"),
        modules_key=None, modules={}, image_key="i", provider="qemu", accel="tcg", workers=0,
        host=HostFacts(system="", python="", qemu="", cpus=1, memory=1),
        started=0, seconds=1, exit=0, shared=shared,
        tests=tuple(
            TestResult(id=f"t/test_a.py::{name}", status=status, exit=EXIT[status], duration=1)
            for name, status in tests.items()
        ),
    )  # fmt: skip


def run(*cells: CellResult, untested: tuple[Untested, ...] = ()) -> RunResult:
    return RunResult(
        run="r", command=(), started=0, seconds=1, exit=0, cells=cells, untested=untested
    )


def test_differences_come_first_and_the_worst_of_them_on_top() -> None:
    rows = table(run(
        cell("6.1", alike="failed", skips="skipped", dies="kernel", well="passed"),
        cell("6.12", alike="failed", skips="passed", dies="passed", well="passed"),
    ))  # fmt: skip
    assert [row.test.rpartition("::")[2] for row in rows] == ["dies", "skips", "alike", "well"]
    assert [row.differs for row in rows] == [True, True, False, False]


def test_a_test_that_a_flavour_does_not_run_is_no_difference() -> None:
    found = run(cell("6.1", a="passed", b="passed"), cell("6.1", flavour="race", a="passed"))
    assert columns(found) == ["6.1 default", "6.1 race"]
    assert not list(differences(found))


def test_shards_share_a_column_and_the_shared_machine_has_its_own() -> None:
    found = run(
        cell("6.1", flavour="debug", a="passed"),
        cell("6.1", flavour="debug", b="passed"),
        cell("6.1", flavour="debug", shared=True, a="failed", b="passed"),
    )
    assert columns(found) == ["6.1 debug", "6.1 debug shared"]
    assert list(differences(found)) == [
        "differs: t/test_a.py::a: passed on 6.1 debug; failed on 6.1 debug shared"
    ]


def test_a_terminal_is_told_so_many() -> None:
    one: dict[str, Status] = {f"t{number}": "passed" for number in range(5)}
    other: dict[str, Status] = {f"t{number}": "failed" for number in range(5)}
    lines = list(differences(run(cell("6.1", **one), cell("7.3", **other)), shown=3))
    assert len(lines) == 4
    assert lines[-1] == "and 2 more that differ"


def test_the_report_shows_them_before_anything_else(tmp_path: Path) -> None:
    found = run(cell("6.1", a="failed", b="passed"), cell("6.12", a="passed", b="passed"))
    write_report(found, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    first = text[text.index("<h2") : text.index("<h2>Cells")]
    assert re.search(r"::a</code>.*?failed.*?passed", first, re.DOTALL)
    assert first.index("::a<") < first.index("<details>") < first.index("::b<")


def test_one_kernel_is_compared_with_nobody(tmp_path: Path) -> None:
    write_report(run(cell("6.1", a="failed")), tmp_path / "report.html")
    assert 'id="kernels"' not in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("codes", "status", "expected"),
    [([1], "passed", 1), ([1, 3], "failed", 3), ([3], "infra", 4), ([2], None, 2), ([1], None, 1)],
)
def test_what_was_not_built_counts(
    tmp_path: Path, codes: list[int], status: Status | None, expected: int
) -> None:
    untested = [Untested(name=f"6.{code}-debug", exit=code, message="a.c:1: no") for code in codes]
    cells = [cell("6.1", a=status)] if status else []
    directory = new_run(tmp_path)
    found = merge(directory, cells, command=[], started=0, untested=untested)
    assert found.exit == expected
    assert "a.c:1: no" in (directory / "report.html").read_text()


def test_junit_tells_whose_fault_a_build_was(tmp_path: Path) -> None:
    untested = (
        Untested(name="6.1-debug", exit=1, message="a.c:1: no"),
        Untested(name="7.3-debug", exit=3, message="no clang"),
    )
    write_junit(run(untested=untested), tmp_path / "junit.xml")
    root = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert root is not None
    suites = {suite.get("name"): suite for suite in root.iter("testsuite")}
    assert suites["6.1-debug"].get("failures") == "1"
    assert suites["6.1-debug"].get("errors") == "0"
    assert suites["7.3-debug"].get("errors") == "1"


def test_a_cell_that_cannot_begin_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_cell(file: Path) -> CellResult:
        if file.parent.name == "6.1":
            raise UserError("the kernel is not in the store")
        return cell(file.parent.name, a="passed")

    monkeypatch.setattr(running, "run_cell", run_cell)
    directory = new_run(tmp_path)
    files = [directory / "cells" / name / "cell.json" for name in ("6.1", "6.12")]
    assert run_cells([files], directory, began=0) == 2
    found = load_run(directory / "run.json")
    assert [one.name for one in found.cells] == ["6.12-default-1"]
    assert [(one.name, one.exit) for one in found.untested] == [("6.1", 2)]
    assert "6.1: the kernel is not in the store" in capsys.readouterr().err
