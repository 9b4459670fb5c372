# SPDX-License-Identifier: GPL-2.0-only
"""`lab test` and `lab cell` refuse what is wrong at once: one message, the right status."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LAB = (sys.executable, "-m", "lab")


def lab(
    *words: str, path: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **environment}
    if path is not None:
        variables["PATH"] = path
    return subprocess.run(
        [*LAB, *words], env=variables, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "cache")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tests/e2e/typo"], "no test `tests/e2e/typo`"),
        (["--provider", "vmware"], "no provider `vmware`"),
        (["--accel", "hvf"], "no accelerator `hvf`"),
        (["-n", "many"], "`-n many`"),
        (["--flavour", "bitter"], "bitter"),
        (["--kernel", "9.9"], "9.9"),
        (["--shards", "0"], "shards"),
    ],
)
def test_wrong_use_is_2(words: list[str], said: str, store: str) -> None:
    ended = lab("test", *words, LAB_CACHE=store)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_typo_in_the_manifest_is_2(tmp_path: Path, store: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("kernels:\n  '6.12':\n    sauce: {debian: linux-source-6.12}\n")
    ended = lab("--manifest", str(file), "test", LAB_CACHE=store)
    assert ended.returncode == 2
    assert f"{file}:3" in ended.stderr


def test_no_qemu_is_3(tmp_path: Path, store: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "gcc", "make", "git"):
        if found := shutil.which(name):
            (tools / name).symlink_to(found)
    ended = lab("test", path=str(tools), LAB_CACHE=store)
    assert ended.returncode == 3
    assert "qemu-system-x86" in ended.stderr
    assert "lab doctor --install" in ended.stderr


def test_a_cell_whose_artifacts_are_not_here_is_2(tmp_path: Path, store: str) -> None:
    file = tmp_path / "cell.json"
    file.write_text('{"run":"r","name":"n","kernel":"k","image":"i","flavour":"default"}')
    ended = lab("cell", "run", str(file), LAB_CACHE=store)
    assert ended.returncode == 2
    assert "kernel k is not in the store" in ended.stderr


def test_the_status_reaches_the_file_that_run_reads(tmp_path: Path, store: str) -> None:
    file = tmp_path / "status"
    lab("test", "tests/e2e/typo", LAB_CACHE=store, LAB_STATUS_FILE=str(file))
    assert file.read_text() == "2\n"
