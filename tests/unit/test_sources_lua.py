# SPDX-License-Identifier: GPL-2.0-only
"""The member of an sdist is unpacked, and nothing of it lands elsewhere."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from lab.errors import UserError
from lab.sources.lua import unpack_member


def sdist(tmp_path: Path, *entries: tuple[str, str] | tarfile.TarInfo) -> Path:
    path = tmp_path / "lupa-2.8.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for entry in entries:
            if isinstance(entry, tarfile.TarInfo):
                archive.addfile(entry)
                continue
            name, text = entry
            info = tarfile.TarInfo(name)
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def test_member_only(tmp_path: Path) -> None:
    path = sdist(
        tmp_path,
        ("lupa-2.8/setup.py", "x"),
        ("lupa-2.8/third-party/lua55/lua.h", "h"),
        ("lupa-2.8/third-party/lua55/testes/all.lua", "t"),
        ("lupa-2.8/third-party/lua555/lua.h", "wrong"),
    )
    into = tmp_path / "into"
    into.mkdir()
    unpack_member(path, "third-party/lua55", into)
    found = {str(file.relative_to(into)): file.read_text() for file in into.rglob("*.*")}
    assert found == {"lua.h": "h", "testes/all.lua": "t"}


def test_no_such_member(tmp_path: Path) -> None:
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="no directory `third-party/lua56`"):
        unpack_member(sdist(tmp_path, ("l/a", "x")), "third-party/lua56", tmp_path / "into")


@pytest.mark.parametrize("name", ["l/m/../../../evil", "l/m/link"])
def test_nothing_lands_outside(tmp_path: Path, name: str) -> None:
    info = tarfile.TarInfo(name)
    if name.endswith("link"):
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack_member(sdist(tmp_path, ("l/m/ok", "x"), info), "m", tmp_path / "into")
    assert not (tmp_path / "evil").exists()


def test_truncated(tmp_path: Path) -> None:
    path = sdist(tmp_path, ("l/m/ok", "x" * 100_000))
    path.write_bytes(path.read_bytes()[:-20])
    (tmp_path / "into").mkdir()
    with pytest.raises(UserError, match="cannot be unpacked"):
        unpack_member(path, "m", tmp_path / "into")
