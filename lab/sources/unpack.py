# SPDX-License-Identifier: GPL-2.0-only
"""Unpack a kernel tarball."""

from __future__ import annotations

import os
from pathlib import Path

from lab.errors import UserError
from lab.process import ProgramFailed, run
from lab.progress import progress

BLOCKS_PER_REPORT = 10_000
"""tar speaks up each time that it has read so many records of 10 KiB."""


def unpack_tree(tarball: Path, into: Path, *, label: str) -> None:
    """Unpack a kernel tarball, without the top directory in which its files stand.

    Owners are ours, whoever packed it.

    Args:
        into: an empty directory.

    Raises:
        UserError: it is truncated or damaged, or is no such tarball.
    """
    inner = into / ".unpack"
    inner.mkdir()
    with progress(label) as step:
        try:
            run(
                (
                    *("tar", "--extract", "--no-same-owner", "--file", tarball),
                    *("--directory", inner),
                    f"--checkpoint={BLOCKS_PER_REPORT}",
                    "--checkpoint-action=echo=%u",
                ),
                # tar finds the compressor by itself; xz uses one core unless told.
                env={"LC_ALL": "C", "XZ_DEFAULTS": "-T0"},
                on_line=lambda line: step.update(detail=_amount(line)),
            )
        except ProgramFailed as error:
            raise _explain(tarball, error) from None
    top = _top(inner, tarball)
    for entry in top.iterdir():
        entry.rename(into / entry.name)
    if top != inner:
        top.rmdir()
    inner.rmdir()
    _make_readable(into)


def _top(unpacked: Path, tarball: Path) -> Path:
    """The directory that is the tree: the only one, or where tar was told to pack ``.``."""
    if (unpacked / "Kconfig").is_file():
        return unpacked
    entries = list(unpacked.iterdir())
    if len(entries) != 1 or not entries[0].is_dir() or entries[0].is_symlink():
        raise UserError(
            f"does not hold one top directory but {len(entries)} entries",
            file=tarball,
            right="give a tarball as kernel.org or `git archive --prefix` make it",
        )
    return entries[0]


def _amount(line: str) -> str:
    records = line.rsplit(maxsplit=1)[-1]
    return f"{int(records) * 10 // 1024} MiB" if records.isdigit() else ""


def _explain(tarball: Path, error: ProgramFailed) -> UserError:
    said = error.finished.stderr
    first = next((line for line in said.splitlines() if ": " in line), "").split(": ", 1)[-1]
    truncated = any(
        sign in said for sign in ("nexpected EOF", "nexpected end", "ends unexpectedly")
    )
    what = "is truncated" if truncated else "is no tarball, or a damaged one"
    return UserError(
        f"{what} ({first})", file=tarball, right="fetch it again, and check its sha256"
    )


def _make_readable(tree: Path) -> None:
    """A tree of mode 700, as some tarballs are, could not be read by another user's build."""
    tree.chmod(tree.stat().st_mode | 0o555)
    for directory, folders, _ in os.walk(tree):
        for name in folders:
            path = Path(directory, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o555)
