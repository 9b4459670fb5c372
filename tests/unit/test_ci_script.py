# SPDX-License-Identifier: GPL-2.0-only
""".ci/run: the worst status goes out, pytest's own summaries come last."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CI_RUN = ROOT / ".ci" / "run"
PASSED = "======= 12 passed, 1 skipped in 3.21s ======="
FAILED = "\\033[31m= 1 failed, 3 passed in 60.10s (0:01:00) =\\033[0m"
LAB_SUM = "12 passed in 5.10s"


def ci(
    tmp_path: Path, *, turn: str = "", limit: int = 60, **sessions: tuple[str, int]
) -> subprocess.CompletedProcess[str]:
    """What .ci/run does where ./run prints and returns what `sessions` say.

    Args:
        turn: shell, run before the step that has a `--turn`.
        limit: seconds for everything.
    """
    (tmp_path / ".ci").mkdir()
    shutil.copy(CI_RUN, tmp_path / ".ci" / "run")
    cases = "".join(
        f"{name}) printf '{text}\\n{LAB_SUM}\\n'; exit {status} ;;\n"
        for name, (text, status) in sessions.items()
    )
    turns = f'case "$*" in *--turn*) :; {turn}\n;; esac\n'
    (tmp_path / "run").write_text(f"#!/bin/sh\n{turns}case $1 in\n{cases}esac\n")
    (tmp_path / "run").chmod(0o755)
    return subprocess.run(
        ["bash", tmp_path / ".ci" / "run"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "LAB_CI_LIMIT": str(limit)},
        timeout=20,
        check=False,
    )


def test_the_manual_knows_the_limit() -> None:
    script = re.search(r"LAB_CI_LIMIT:-(\d+)", CI_RUN.read_text())
    page = " ".join((ROOT / "docs" / "ci.md").read_text().split())
    manual = re.search(r"`LAB_CI_LIMIT`[^.]*, (\d+) if it is left out", page)
    assert script and manual
    assert manual[1] == script[1]


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


def test_one_kernel_and_flavour_have_their_turn(tmp_path: Path) -> None:
    done = ci(tmp_path, lint=("fine", 0), tests=(PASSED, 0), e2e=(PASSED, 0))
    # Outside a repository it is the first one's.
    words = "e2e -- --kernel all --flavour all --turn 0 tests/e2e/smoke"
    assert f"::: ./run {words}: status 0" in done.stdout


def test_a_failed_turn_counts(tmp_path: Path) -> None:
    done = ci(tmp_path, turn="exit 1", lint=("fine", 0), tests=(PASSED, 0), e2e=(PASSED, 0))
    assert done.returncode == 2
    assert "\nturn: no test passed\n" in done.stdout


@pytest.mark.parametrize(("turn", "limit"), [("exec sleep 15", 2), ("exit 1", 0)])
def test_a_turn_without_time_costs_nothing(tmp_path: Path, turn: str, limit: int) -> None:
    done = ci(tmp_path, turn=turn, limit=limit, lint=("x", 0), tests=(PASSED, 0), e2e=(FAILED, 1))
    assert done.returncode == 1
    assert "\nturn: there was no time for it\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "= 1 failed, 3 passed in 60.10s (0:01:00) ="
