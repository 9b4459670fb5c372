# SPDX-License-Identifier: GPL-2.0-only
"""lab.lock: what is written is what is read, and nothing else counts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lab import lockfile
from lab.errors import UserError
from lab.lockfile import Lock, Locked

REQUEST = {"debian": "linux-source-6.12", "suite": "bookworm-security"}
KERNEL = Locked(REQUEST, version="6.12.117-1", file="linux_6.12.deb", sha256="1e" * 32)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lab.lock"


def test_no_file_is_an_empty_lock(path: Path) -> None:
    assert lockfile.read(path) == Lock()


@pytest.mark.parametrize("version", ["6.12.117-1", "6.10", "1e5", "0x10", "no", "null", "a: b"])
def test_round_trip(path: Path, version: str) -> None:
    lock = Lock().pinned("kernels", "6.10", Locked(REQUEST, version=version))
    lockfile.write(path, lock)
    assert lockfile.read(path) == lock


def test_hashes_that_look_like_numbers_survive(path: Path) -> None:
    lock = Lock().pinned("lua", "5.5.1", Locked({"pypi": "x"}, "2.8", sha256="1" * 62 + "e5"))
    lockfile.write(path, lock)
    assert lockfile.read(path) == lock


def test_a_pin_is_for_its_request_only(path: Path) -> None:
    lockfile.pin(path, "kernels", "6.12", KERNEL)
    lock = lockfile.read(path)
    assert lock.get("kernels", "6.12", REQUEST) == KERNEL
    assert lock.get("kernels", "6.12", {**REQUEST, "suite": "trixie"}) is None
    assert lock.get("kernels", "6.1", REQUEST) is None


def test_changes() -> None:
    before = Lock().pinned("kernels", "6.12", KERNEL)
    newer = Locked(REQUEST, version="6.12.120-1")
    after = before.pinned("kernels", "6.12", newer).pinned("lua", "5.5.1", KERNEL)
    assert [str(change) for change in before.changes(after)] == [
        "kernels 6.12: 6.12.117-1 -> 6.12.120-1",
        "lua 5.5.1: nothing -> 6.12.117-1",
    ]
    assert before.changes(before) == []


def test_same_version_with_other_content_is_a_change() -> None:
    before = Lock().pinned("kernels", "6.12", KERNEL)
    after = Lock().pinned("kernels", "6.12", Locked(REQUEST, KERNEL.version, sha256="2f" * 32))
    assert "other content" in str(before.changes(after)[0])


def test_pins_at_once_lose_nothing(path: Path) -> None:
    names = [f"k{number}" for number in range(24)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        list(pool.map(lambda name: lockfile.pin(path, "kernels", name, KERNEL), names))
    assert {name for _, name in lockfile.read(path).entries} == set(names)
    assert [entry.name for entry in path.parent.iterdir()] == ["lab.lock"]


def test_the_same_pin_writes_nothing(path: Path) -> None:
    lockfile.pin(path, "kernels", "6.12", KERNEL)
    before = path.stat().st_ino
    lockfile.pin(path, "kernels", "6.12", KERNEL)
    assert path.stat().st_ino == before


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("kernels: {}\n", 1, "version"),
        ("version: 2\n", 1, "version 2"),
        ("version: 1\nkernels: 3\n", 2, "mapping"),
        ("version: 1\nkernels:\n  a: {request: {}}\n", 3, "`version` is missing"),
        ("version: 1\nkernels:\n  a: {request: {}, version: x, sha: y}\n", 3, "`sha` is unknown"),
        ("version: 1\nkernels:\n  a: {request: {}, version: 6.10}\n", 3, "quote"),
        ("version: 1\nkernels:\n  a: {request: {}, version: 6}\n", 3, "must be text"),
        ("version: 1\nkernels:\n  a: {request: x, version: a}\n", 3, "mapping"),
    ],
)
def test_refused(path: Path, text: str, line: int, words: str) -> None:
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        lockfile.read(path)
    assert words in str(caught.value)
    assert caught.value.line == line
