# SPDX-License-Identifier: GPL-2.0-only
"""What a bundle runs again, and in whose machine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import cli
from lab.results import bundle, merge
from lab.testing import running
from lab.testing.cell import Cell, load_cell


@pytest.fixture
def shared(tmp_path: Path) -> Cell:
    """A cell whose tests share a machine."""
    return Cell(
        run="r",
        name="6.12-debug-shared",
        kernel="k",
        image="i",
        flavour="debug",
        shared=True,
        tests=("tests/e2e",),
    )


@pytest.mark.parametrize(("option", "kept"), [((), True), (("--gdb",), False)])
def test_gdb_sees_the_beginning_of_the_tests_own_machine(
    shared: Cell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    option: tuple[str, ...],
    kept: bool,
) -> None:
    ran: list[Cell] = []

    def run_cell(file: Path) -> SimpleNamespace:
        ran.append(load_cell(file))
        return SimpleNamespace(exit=0, tests=(), seconds=1.0)

    shared.save(tmp_path / "cell.json")
    monkeypatch.setattr(running, "run_cell", run_cell)
    monkeypatch.setattr(merge, "new_run", lambda _: tmp_path / "replays")
    assert cli.run(["replay", str(tmp_path), *option]) == 0
    assert [cell.shared for cell in ran] == [kept]


def test_what_no_single_test_did_is_all_of_them_again(shared: Cell) -> None:
    test = "tests/e2e/smoke/test_boot.py::test_cold_boot"
    assert bundle._again(test, shared) == (test,)
    assert bundle._again("the shared machine 1::kmemleak", shared) == shared.tests
