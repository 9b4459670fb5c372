# SPDX-License-Identifier: GPL-2.0-only
"""Running a cell: what an earlier run of the same file left does not count."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import pytest

from lab import cli
from lab.results.record import KernelFacts, TestResult
from lab.testing import running
from lab.testing.cell import Cell

PASSED = TestResult(id="tests/e2e/a.py::test_a", status="passed", exit=0, duration=0.1)


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cell's file; whatever it wants of the store and the host is there."""
    facts = KernelFacts(name="6.12", version="6.12.1", flavour="default", key="k")
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "store"))
    monkeypatch.setattr(running, "Rig", lambda *_: SimpleNamespace(modules=None, accel="tcg"))
    monkeypatch.setattr(running, "_kernel_facts", lambda _: facts)
    monkeypatch.setattr(running, "make_bundles", lambda tests, **_: tests)
    monkeypatch.setattr(running, "qemu_version", lambda _: "QEMU")
    monkeypatch.setattr(running.argv, "program", lambda: "qemu")
    file = tmp_path / "cells/c/cell.json"
    Cell(run="r", name="c", kernel="k", image="i", flavour="default").save(file)
    return file


def test_a_pytest_that_never_began_does_not_show_the_last_verdicts(
    cell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passes(*_: object) -> int:
        cell.with_name("tests.jsonl").write_text(PASSED.model_dump_json() + "\n")
        return 0

    monkeypatch.setattr(running, "_pytest", passes)
    assert running.run_cell(cell).exit == 0
    monkeypatch.setattr(running, "_pytest", lambda *_: 4)
    again = running.run_cell(cell)
    assert (again.exit, again.tests) == (2, ())


@pytest.mark.parametrize(("told", "code"), [(0, 4), (1, 1), (2, 2), (4, 4)])
def test_a_failure_is_the_tests_own_where_one_tells_of_it(
    cell: Path, monkeypatch: pytest.MonkeyPatch, told: int, code: int
) -> None:
    """Such as a topology that a kernel refuses: wrong input, and no trouble of the lab's."""
    test = PASSED.model_copy(update={"status": "failed" if told else "passed", "exit": told})

    def fails(*_: object) -> int:
        cell.with_name("tests.jsonl").write_text(test.model_dump_json() + "\n")
        return 1

    monkeypatch.setattr(running, "_pytest", fails)
    assert running.run_cell(cell).exit == code


def test_an_interrupted_run_leaves_no_earlier_results(
    cell: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell.with_name("results.json").write_text("{}")

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_pytest", interrupted)
    with pytest.raises(KeyboardInterrupt):
        running.run_cell(cell)
    assert not cell.with_name("results.json").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_for_scripts_standard_output_is_nothing_but_json(
    cell: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    as_json: bool,
) -> None:
    class Pytest(subprocess.Popen[bytes]):
        def __init__(self, _: object, *, stdout: IO[str] | None = None, **__: object) -> None:
            super().__init__([sys.executable, "-c", "print('pytest speaks')"], stdout=stdout)

    monkeypatch.setattr(running.subprocess, "Popen", Pytest)
    cli.run(["cell", "run", str(cell), *["--json"] * as_json])
    said = capfd.readouterr()
    assert "pytest speaks" in (said.err if as_json else said.out)
    if as_json:
        assert json.loads(said.out)["name"] == "c"
