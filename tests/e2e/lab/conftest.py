# SPDX-License-Identifier: GPL-2.0-only
"""An inner run: tests that fail and crash on purpose, and what the lab made of them."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab import manifest
from lab.results.merge import load_cell_result
from lab.results.record import CellResult, TestResult
from lab.store import Store
from lab.testing.cell import Cell, load_cell
from lab.testing.fixtures import KernelInfo
from lab.testing.stages import Wanted, Workshop, prepare


@dataclass(frozen=True)
class Inner:
    """How an inner run ended."""

    status: int
    output: str
    cell: CellResult
    directory: Path

    def __getitem__(self, name: str) -> TestResult:
        """The result of a test by its function's name, parameters included."""
        found = [test for test in self.cell.tests if test.id.partition("::")[2] == name]
        assert len(found) == 1, f"{name} among {[test.id for test in self.cell.tests]}"
        return found[0]

    @property
    def statuses(self) -> dict[str, str]:
        """Function name -> status."""
        return {test.id.partition("::")[2]: test.status for test in self.cell.tests}


@pytest.fixture
def ours(request: pytest.FixtureRequest) -> Cell:
    """The cell that these tests run in."""
    return load_cell(Path(request.config.getoption("--lab-cell")))


@pytest.fixture
def cell_file(ours: Cell) -> Callable[..., Path]:
    """cell_file(directory, "def test_x(machine): ..."): a cell like ours, for lab cell run."""

    def make(directory: Path, source: str, *, name: str = "inner", **changes: object) -> Path:
        home = directory / "cells" / name
        home.mkdir(parents=True)
        test = directory / f"test_{name}.py"
        test.write_text("import os, pytest, signal, time\n" + textwrap.dedent(source))
        fresh = {"tests": (str(test),), "options": (), "name": name, "workers": 0,
                 "shared": False, "shard": 1, "shards": 1, "times": {}}  # fmt: skip
        ours.model_copy(update=fresh | changes).save(home / "cell.json")
        return home / "cell.json"

    return make


@pytest.fixture
def inner(ours: Cell, cell_file: Callable[..., Path], tmp_path: Path) -> Callable[..., Inner]:
    """inner('''def test_x(machine): ...''', workers=2): run tests in a cell like ours.

    `under` is a command that the lab is run by, with its arguments.
    """

    def run(
        source: str,
        *,
        environment: Mapping[str, str] | None = None,
        under: Sequence[str] = (),
        **changes: object,
    ) -> Inner:
        number = len(list(tmp_path.glob("run-*")))
        file = cell_file(tmp_path / f"run-{number}", source, **changes)
        ended = subprocess.run(
            [*under, sys.executable, "-m", "lab", "cell", "run", str(file)],
            env={**os.environ, **(environment or {})}, capture_output=True, text=True,
            timeout=1800 * ours.patience, check=False,
        )  # fmt: skip
        output = ended.stdout + ended.stderr
        results = file.parent / "results.json"
        assert results.exists(), output
        return Inner(ended.returncode, output, load_cell_result(results), file.parent)

    return run


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for sockets that no other lab uses or sweeps; its path is short."""
    with tempfile.TemporaryDirectory(prefix="lab-") as directory:
        yield Path(directory)


@pytest.fixture
def stage(kernel: KernelInfo) -> tuple[str, ...]:
    """Options of `lab test` for what we run on, where nothing is to be built for it."""
    lab, store = manifest.read(), Store()
    if kernel.name not in lab.kernels:
        pytest.skip(f"{kernel.name} is no kernel of lab.yaml")
    wanted = Wanted(kernels=(kernel.name,), flavours=(kernel.flavour,))
    workshop = Workshop(lab, wanted, store)
    if not all(workshop.is_ready(stage) for stage in prepare(lab, wanted, store)):
        pytest.skip(f"{kernel.name} as in lab.yaml is not built")
    return "--kernel", kernel.name, "--flavour", kernel.flavour
