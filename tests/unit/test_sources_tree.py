# SPDX-License-Identifier: GPL-2.0-only
"""What is a kernel tree, and which version."""

from __future__ import annotations

from pathlib import Path

import pytest
from sources_kit import FILES, MAKEFILE, write_tree

from lab.errors import UserError
from lab.sources.tree import SourceId, kernel_line, kernel_version


@pytest.mark.parametrize(
    ("makefile", "version"),
    [
        (MAKEFILE, "6.12.117"),
        (MAKEFILE.replace("EXTRAVERSION =", "EXTRAVERSION = -rc2"), "6.12.117-rc2"),
        (MAKEFILE.replace("SUBLEVEL = 117\n", ""), "6.12.0"),
        ("# VERSION = 5\n" + MAKEFILE, "6.12.117"),
    ],
)
def test_version(tmp_path: Path, makefile: str, version: str) -> None:
    assert kernel_version(write_tree(tmp_path, {**FILES, "Makefile": makefile})) == version


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("6.12.117", "6.12"),
        ("6.1.192-2", "6.1"),
        ("7.3.4-1~bpo13+1", "7.3"),
        ("6.10.0-rc1", "6.10"),
    ],
)
def test_line(version: str, line: str) -> None:
    assert kernel_line(version) == line
    assert SourceId(name="x", version=version, key="k").line == line


@pytest.mark.parametrize("missing", ["Makefile", "Kconfig", "Kbuild", "scripts/Kbuild.include"])
def test_not_a_kernel_tree(tmp_path: Path, missing: str) -> None:
    tree = write_tree(tmp_path, {name: text for name, text in FILES.items() if name != missing})
    with pytest.raises(UserError, match="is not a kernel tree") as caught:
        kernel_version(tree)
    assert caught.value.file == tree and caught.value.exit_status == 2


def test_a_makefile_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="VERSION and PATCHLEVEL"):
        kernel_version(write_tree(tmp_path, {**FILES, "Makefile": "all:\n\ttrue\n"}))


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        kernel_version(tmp_path / "gone")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is no directory"):
        kernel_version(tmp_path / "file")
