# SPDX-License-Identifier: GPL-2.0-only
"""The seal: what it notices, file by file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lab import seal


@pytest.fixture
def content(tmp_path: Path) -> Path:
    (tmp_path / "content" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "content" / "deep" / "er" / "file").write_bytes(b"x" * 100)
    (tmp_path / "content" / "to-file").symlink_to("deep/er/file")
    (tmp_path / "content" / "to-directory").symlink_to("deep")
    (tmp_path / "content" / "to-nothing").symlink_to("/no/such")
    os.mkfifo(tmp_path / "content" / "fifo")
    seal.write(tmp_path / "seal.json", tmp_path / "content", {"a": 1})
    return tmp_path / "content"


def torn(content: Path, *, full: bool = False) -> str | None:
    sealed = seal.read(content.parent / "seal.json")
    assert sealed is not None
    return sealed.torn(content, full=full)


def test_whole(content: Path) -> None:
    assert torn(content) is None
    assert torn(content, full=True) is None


def test_everything_is_in_it(content: Path) -> None:
    sealed = seal.read(content.parent / "seal.json")
    assert sealed is not None
    assert set(sealed.files) == {"deep/er/file", "to-file", "to-directory", "to-nothing", "fifo"}
    assert sealed.files["deep/er/file"][2] == seal.digest(b"x" * 100)
    assert sealed.inputs == {"a": 1}


def test_shorter_with_the_same_time(content: Path) -> None:
    file = content / "deep" / "er" / "file"
    before = file.stat()
    file.write_bytes(b"x" * 99)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert torn(content) == "deep/er/file has 99 bytes instead of 100"


def test_link_to_a_directory_that_leads_elsewhere(content: Path) -> None:
    (content / "to-directory").unlink()
    (content / "to-directory").symlink_to("deep/er")
    assert torn(content) == "to-directory leads elsewhere"


def test_file_that_became_a_directory(content: Path) -> None:
    file = content / "deep" / "er" / "file"
    file.unlink()
    file.mkdir()
    assert torn(content) is not None


def test_link_that_became_a_file(content: Path) -> None:
    (content / "to-file").unlink()
    (content / "to-file").write_text("x")
    assert torn(content) == "to-file leads elsewhere"


def test_nothing_left(content: Path) -> None:
    content.rename(content.parent / "away")
    assert torn(content) == "it is empty"


def test_what_is_new_does_no_harm(content: Path) -> None:
    (content / "new").write_text("x")
    assert torn(content) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 0}', '{"format": 1}'])
def test_unreadable_seal(tmp_path: Path, text: str) -> None:
    (tmp_path / "seal.json").write_text(text)
    assert seal.read(tmp_path / "seal.json") is None


def test_publish_leaves_the_old_on_failure(tmp_path: Path) -> None:
    target = tmp_path / "file"
    seal.publish(target, b"old")
    with pytest.raises(TypeError):
        seal.publish(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]
