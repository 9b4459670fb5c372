# SPDX-License-Identifier: GPL-2.0-only
"""Why a patch does not apply: file, hunk, and the lines that differ."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from unidiff.constants import DEV_NULL, LINE_TYPE_NO_NEWLINE
from unidiff.patch import Hunk, PatchedFile

from lab.errors import UserError
from lab.kernel.diff import MalformedDiff, inside, parse, split
from lab.kernel.series import Patch

SHOWN = 12
"""Differing lines that are shown; of more than that, the place is a wrong guess anyway."""

# Up to git 2.43 "at line 5", later "at <stdin>:5".
CORRUPT = re.compile(r"(?:corrupt patch|garbage|fragment).* at (?:line |\S+:)(\d+)")


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where in a file a hunk fits best; ``start`` counts from 0."""

    start: int
    equal: int


def explain(patch: Patch, tree: Path, *, version: str, said: str) -> UserError:
    """The error for a patch that was refused.

    Args:
        tree: holds the touched files as the patch found them.
        version: the kernel's.
        said: git's own messages, for what only git knows.
    """
    corrupt = CORRUPT.search(said)
    if corrupt:
        return UserError(
            f"patch {patch.name}: is damaged",
            file=patch.file,
            line=patch.line(int(corrupt[1])),
            right="fetch or make it anew; mail programs break lines",
        )
    parts = split(patch.text)
    assert parts is not None, "make_patch() has seen to it"
    before, body = parts
    try:
        changes = parse(body)
    except MalformedDiff as error:  # make_patch() has parsed it before
        raise AssertionError(patch.name) from error
    for change in changes:
        found = _explain_file(change, patch, tree, version=version)
        if found is not None:
            line, what = found
            return UserError(
                f"patch {patch.name}: {what}", file=patch.file, line=patch.line(before + line)
            )
    first = next((line for line in said.splitlines() if line.startswith("error: ")), said.strip())
    return UserError(
        f"patch {patch.name} does not apply to Linux {version}: {first.removeprefix('error: ')}",
        file=patch.file,
    )


def _explain_file(
    change: PatchedFile, patch: Patch, tree: Path, *, version: str
) -> tuple[int, str] | None:
    """Line of the diff, and what is wrong there; None if nothing is."""
    old, new = change.source_file, change.target_file
    added, removed = change.is_added_file, change.is_removed_file
    if patch.reverse:
        old, new, added, removed = new, old, removed, added
    name = inside(new if old == DEV_NULL else old, strip=patch.strip)[0]
    file = tree / name
    line = change.diff_line_no or 1
    if added:
        if file.exists() or file.is_symlink():
            return line, f"creates {name}, which Linux {version} has already"
        return None
    if not file.is_file():
        return line, f"changes {name}, which is not in Linux {version}"
    lines = _lines(file.read_text(errors="surrogateescape"))
    return _explain_hunks(list(change), lines, name=name, version=version, reverse=patch.reverse)


def _explain_hunks(
    hunks: list[Hunk], lines: list[str], *, name: str, version: str, reverse: bool
) -> tuple[int, str] | None:
    start = 0
    for number, hunk in enumerate(hunks, 1):
        wanted, made = _sides(hunk, reverse=reverse)
        hint = (hunk.target_start if reverse else hunk.source_start) - 1
        found = _find(wanted, lines, start=start, hint=hint)
        if found is not None:
            start = found + len(wanted)
            continue
        header = f"hunk {number} of {len(hunks)} (line {hint + 1})"
        line = (hunk[0].diff_line_no or 2) - 1 if hunk else 1
        if _find(made, lines, start=0, hint=hint) is not None and made != wanted:
            return line, f"{header} is in {name} of Linux {version} already"
        place = _nearest(wanted, lines, hint=hint)
        return line, f"{header} does not fit {name} of Linux {version}" + _differences(
            wanted, lines, place
        )
    return None


def _sides(hunk: Hunk, *, reverse: bool) -> tuple[list[str], list[str]]:
    """A hunk's lines before and after, and whether the last one ends the file without newline."""
    before: list[str] = []
    after: list[str] = []
    last: list[list[str]] = []
    for line in hunk:
        if line.line_type == LINE_TYPE_NO_NEWLINE:
            for side in last:
                side[-1] = side[-1].rstrip("\n")
            continue
        last = [] if line.is_added else [before]
        last += [] if line.is_removed else [after]
        for side in last:
            # An editor may have stripped the blank that stands for an empty line.
            side.append(line.value or "\n")
    return (after, before) if reverse else (before, after)


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _find(wanted: list[str], lines: list[str], *, start: int, hint: int) -> int | None:
    """Where the lines stand one after the other, nearest to the hint."""
    last = len(lines) - len(wanted)
    places = [
        place
        for place in range(start, last + 1)
        if lines[place : place + 1] == wanted[:1] and lines[place : place + len(wanted)] == wanted
    ]
    return min(places, key=lambda place: abs(place - hint), default=None)


def _nearest(wanted: list[str], lines: list[str], *, hint: int) -> _Place:
    """Where most of the lines stand, nearest to the hint."""
    at: dict[str, list[int]] = {}
    for number, line in enumerate(lines):
        at.setdefault(line, []).append(number)
    votes: dict[int, int] = {}
    for number, line in enumerate(wanted):
        # Blank lines and lone braces stand everywhere and prove nothing.
        weight = 4 if len(line.strip()) > 2 else 1
        for place in at.get(line, ()):
            votes[place - number] = votes.get(place - number, 0) + weight
    if not votes:
        return _Place(start=max(0, min(hint, len(lines))), equal=0)
    best = max(votes, key=lambda start: (votes[start], -abs(start - hint)))
    return _Place(start=max(best, 0), equal=votes[best])


def _differences(wanted: list[str], lines: list[str], place: _Place) -> str:
    if not place.equal:
        return f": none of its {len(wanted)} lines stands in the file"
    window = lines[place.start : place.start + len(wanted)]
    shown = []
    matcher = difflib.SequenceMatcher(a=wanted, b=window, autojunk=False)
    for kind, a1, a2, b1, b2 in matcher.get_opcodes():
        if kind == "equal":
            continue
        patch, tree = wanted[a1:a2], window[b1:b2]
        plain = [line.split() for line in patch] != [line.split() for line in tree]
        shown += [f"  patch {'':>6}: {_show(line, plain)}" for line in patch]
        shown += [
            f"  tree  {place.start + number + 1:>6}: {_show(line, plain)}"
            for number, line in zip(range(b1, b2), tree, strict=True)
        ]
        if not plain:
            shown.append("  (only white space differs)")
    if len(shown) > SHOWN:
        shown = [*shown[:SHOWN], f"  and {len(shown) - SHOWN} lines more"]
    return f"; nearest is line {place.start + 1}, where these differ:\n" + "\n".join(shown)


def _show(line: str, plain: bool) -> str:
    """A line for people; where only white space differs, it has to be seen."""
    text = line.rstrip("\n") if plain else repr(line)
    return text.encode(errors="replace").decode()
