# SPDX-License-Identifier: GPL-2.0-only
"""The status file: the highest wins, and only what it is meant for writes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import status


def test_the_highest_wins(tmp_path: Path) -> None:
    file = tmp_path / "status"
    for value, stays in ((0, 0), (3, 3), (1, 3), (4, 4), (0, 4)):
        status.record(file, value)
        assert file.read_text() == f"{stays}\n"


def test_garbage_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "status"
    file.write_text("what")
    status.record(file, 1)
    assert file.read_text() == "1\n"


def test_children_are_not_given_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_STATUS_FILE", "/somewhere")
    assert status.take_file() == Path("/somewhere")
    assert "LAB_STATUS_FILE" not in os.environ
    assert status.take_file() is None


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("def test(): pass", 0),
        ("def test(): assert 0", 1),
        ("", 2),
        ("def test(): raise KeyboardInterrupt", 130),
        ("import pytest\ndef test(): pytest.exit('so', 3)", 4),
    ],
)
def test_pytests_status_becomes_one_of_ours(tmp_path: Path, source: str, code: int) -> None:
    test = tmp_path / "test_one.py"
    test.write_text(source)
    file = tmp_path / "status"
    argv = [sys.executable, "-m", "lab.status", "-p", "no:cacheprovider", str(test)]
    env = {**os.environ, "LAB_STATUS_FILE": str(file)}
    done = subprocess.run(argv, env=env, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == code
    assert file.read_text() == f"{code}\n"
