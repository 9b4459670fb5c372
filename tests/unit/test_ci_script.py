# SPDX-License-Identifier: GPL-2.0-only
""".ci/run: the worst status goes out, pytest's own summaries come last."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CI_RUN = Path(__file__).resolve().parents[2] / ".ci" / "run"
PASSED = "======= 12 passed, 1 skipped in 3.21s ======="
FAILED = "\\033[31m= 1 failed, 3 passed in 60.10s (0:01:00) =\\033[0m"
LAB_SUM = "12 passed in 5.10s"


def ci(tmp_path: Path, **sessions: tuple[str, int]) -> subprocess.CompletedProcess[str]:
    (tmp_path / ".ci").mkdir()
    shutil.copy(CI_RUN, tmp_path / ".ci" / "run")
    cases = "".join(
        f"{name}) printf '{text}\\n{LAB_SUM}\\n'; exit {status} ;;\n"
        for name, (text, status) in sessions.items()
    )
    (tmp_path / "run").write_text(f"#!/bin/sh\ncase $1 in\n{cases}esac\n")
    (tmp_path / "run").chmod(0o755)
    return subprocess.run(
        ["bash", tmp_path / ".ci" / "run"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_good(tmp_path: Path) -> None:
    done = ci(tmp_path, lint=("fine", 0), tests=(PASSED, 0), e2e=(PASSED, 0))
    assert done.returncode == 0
    assert done.stdout.splitlines()[-3:] == [PASSED, PASSED, PASSED]


@pytest.mark.parametrize(
    ("lint", "tests", "e2e", "worst"), [(1, 0, 0, 1), (0, 1, 3, 3), (0, 4, 1, 4), (0, 0, 1, 1)]
)
def test_the_worst_goes_out(tmp_path: Path, lint: int, tests: int, e2e: int, worst: int) -> None:
    done = ci(tmp_path, lint=("x", lint), tests=(FAILED, tests), e2e=(PASSED, e2e))
    assert done.returncode == worst
    failed = "= 1 failed, 3 passed in 60.10s (0:01:00) ="
    assert done.stdout.splitlines()[-3:] == [failed, PASSED, PASSED]


@pytest.mark.parametrize(
    "nothing", ["==== no tests ran in 0.01s ====", "==== 3 skipped in 1s ===="]
)
def test_no_test_passed_is_a_failure(tmp_path: Path, nothing: str) -> None:
    done = ci(tmp_path, lint=("fine", 0), tests=(PASSED, 0), e2e=(nothing, 0))
    assert done.returncode == 2
    assert "\ne2e: no test passed\n" in done.stdout


def test_one_kernel_has_its_turn(tmp_path: Path) -> None:
    done = ci(tmp_path, lint=("fine", 0), tests=(PASSED, 0), e2e=(PASSED, 0))
    # Outside a repository it is the first one's.
    assert "::: ./run e2e -- --kernel all --turn 0 tests/e2e/smoke: status 0" in done.stdout
