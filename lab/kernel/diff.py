# SPDX-License-Identifier: GPL-2.0-only
"""What a diff says that it touches, and whether it is one at all."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from unidiff.constants import DEV_NULL
from unidiff.errors import UnidiffParseError
from unidiff.patch import PatchSet

from lab.errors import UserError

DIFF_START = re.compile(r"^(?:diff --git |--- [^\n]+\n\+\+\+ |Binary files )", re.MULTILINE)
BINARY_WITHOUT_DATA = re.compile(r"^Binary files .* differ$", re.MULTILINE)


class _Lines:
    """A text's lines, remembering how many were taken, for unidiff does not say."""

    def __init__(self, text: str) -> None:
        # Not splitlines(): a form feed or U+2028 inside a line ends none in a diff.
        self.lines = re.findall(r"[^\n]*\n|[^\n]+", text)
        self.taken = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.lines:
            self.taken += 1
            yield line


def parse(text: str) -> PatchSet:
    """The files and hunks of a patch.

    Raises:
        MalformedDiff: it is none; its line counts in ``text``.
    """
    lines = _Lines(text)
    try:
        return PatchSet(lines)
    except UnidiffParseError as error:
        raise MalformedDiff(str(error).strip(), line=max(lines.taken, 1)) from None


class MalformedDiff(ValueError):
    """A diff that nobody could apply."""

    def __init__(self, what: str, *, line: int) -> None:
        super().__init__(what)
        self.line = line


def split(text: str) -> tuple[int, str] | None:
    """The diff in a patch, and how many lines of description stand before it; None if none."""
    start = DIFF_START.search(text)
    if start is None:
        return None
    return text.count("\n", 0, start.start()), text[start.start() :]


def touched_files(
    text: str, *, name: str, file: Path, offset: int | None, strip: int
) -> tuple[tuple[str, ...], str]:
    """Every path that a patch reads or writes, sorted, and the patch from its first diff on.

    Raises:
        UserError: it is no patch, holds no change, or reaches out of the tree.
    """

    def refuse(what: str, *, line: int | None = None, right: str | None = None) -> UserError:
        at = None if line is None or offset is None else offset + line
        return UserError(f"patch {name}: {what}", file=file, line=at, right=right)

    parts = split(text)
    if parts is None:
        raise refuse("holds no diff", right="make it with git format-patch, quilt or diff -u")
    before, body = parts
    hollow = BINARY_WITHOUT_DATA.search(body)
    if hollow:
        raise refuse(
            "changes a binary file but does not carry its data",
            line=before + body.count("\n", 0, hollow.start()) + 1,
            right="make it with git format-patch --binary",
        )
    try:
        changes = parse(body)
    except MalformedDiff as error:
        raise refuse(f"is damaged: {error}", line=before + error.line) from None
    if not changes:
        raise refuse("holds no change", line=before + 1)
    files = set()
    for change in changes:
        for said in (change.source_file, change.target_file):
            if said == DEV_NULL:
                continue
            path, wrong = inside(said, strip=strip)
            if wrong:
                raise refuse(
                    wrong,
                    line=before + (change.diff_line_no or 1),
                    right="paths are relative to the top of the kernel tree after "
                    f"{strip} leading director{'y is' if strip == 1 else 'ies are'} taken off "
                    "(-pN in a series file)",
                )
            files.add(path)
    return tuple(sorted(files)), body


def inside(said: str, *, strip: int) -> tuple[str, str | None]:
    """A path of a patch, stripped, and what is wrong with it."""
    parts = PurePosixPath(said.strip('"')).parts
    kept = parts[strip:]
    if not kept:
        return "", f"`{said}` has no more than {strip} part{'' if strip == 1 else 's'}"
    if said.startswith("/") or ".." in kept or ".git" in kept:
        return "", f"`{said}` is outside of the kernel tree"
    return str(PurePosixPath(*kept)), None
