# SPDX-License-Identifier: GPL-2.0-only
"""A kernel source tree, wherever it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import UserError

MAKEFILE_HEAD = 4096
"""Bytes of a Makefile in which the version stands; it is in the first ten lines since 2.4."""


@dataclass(frozen=True, kw_only=True)
class SourceId:
    """Which source it is, known without having it here.

    Attributes:
        name: as in the manifest, or the name of the user's directory.
        version: as its Makefile says, "6.12.117" or "6.13.0-rc2".
        key: content key; equal keys mean equal files.
        user: the user's own working tree, which may be dirty and may change.
    """

    name: str
    version: str
    key: str
    user: bool = False

    @property
    def line(self) -> str:
        """The kernel line, "6.12", which names the directories below kernel-patches/TOPIC."""
        return kernel_line(self.version)


@dataclass(frozen=True, kw_only=True)
class SourceTree(SourceId):
    """One kernel source tree, complete and verified.

    Attributes:
        path: where it lies; nobody writes there.
        files: of the user's own tree, what belongs to the source (a build in it
            does not): path -> content, as ``lab.sources.worktree`` spells it.
    """

    path: Path
    files: Mapping[str, str] | None = field(default=None, repr=False, compare=False)


def kernel_line(version: str) -> str:
    """The first two numbers of a version: "6.12" of "6.12.117-1~deb12u1"."""
    found = re.match(r"\d+\.\d+", version)
    return found.group() if found else version


def kernel_version(path: Path) -> str:
    """What the Makefile of a kernel tree calls itself, without any local version.

    Raises:
        UserError: the path is no kernel tree.
    """
    if not path.is_dir():
        raise UserError(
            "is no directory" if path.exists() else "does not exist",
            file=path,
            right="name a kernel of lab.yaml or the top directory of a kernel tree",
        )
    values = _assignments(path / "Makefile")
    missing = [
        part
        for part in ("Kconfig", "Kbuild", "scripts/Kbuild.include")
        if not (path / part).is_file()
    ]
    if missing or "VERSION" not in values or "PATCHLEVEL" not in values:
        lacks = missing[0] if missing else "VERSION and PATCHLEVEL in its Makefile"
        raise UserError(
            f"is not a kernel tree: it lacks {lacks}",
            file=path,
            right="give the top directory of a kernel tree",
        )
    version = f"{values['VERSION']}.{values['PATCHLEVEL']}"
    return f"{version}.{values.get('SUBLEVEL') or '0'}{values.get('EXTRAVERSION', '')}"


def _assignments(makefile: Path) -> dict[str, str]:
    try:
        with makefile.open("rb") as stream:
            head = stream.read(MAKEFILE_HEAD).decode(errors="replace")
    except OSError:
        return {}
    wanted = r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION)[ \t]*=[ \t]*(.*?)[ \t]*$"
    return dict(re.findall(wanted, head, re.MULTILINE))
