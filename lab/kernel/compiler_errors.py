# SPDX-License-Identifier: GPL-2.0-only
"""The first error of a build, out of all that make says.

Pure: text in, a record out.  Knows gcc and clang, the linkers, modpost,
objtool and a missing rule.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

EXCERPT_LINES = 12
"""Lines of the compiler's own excerpt that are worth showing."""

_COMPILER = re.compile(
    r"(?P<file>[^\s:][^:\n]*):(?P<line>\d+)(?::\d+)?: "
    r"(?P<what>(?:fatal )?[Ee]rror: .*|undefined reference to .*)"
)
_MAKEFILE = re.compile(r"(?P<file>[^\s:]*):(?P<line>\d+): \*\*\* (?P<what>.*?)(?:\s+Stop\.)?")
_FAILED_TARGET = re.compile(r"\[.*\] Error \d+|\[")

# What belongs to the error above it though it is not indented.
_CONTEXT = re.compile(r"In file included from |.*: In function |.*: At top level|.*: note: ")
_NEXT = re.compile(r"[^\s:|][^:\n]*:\d+(?::\d+)?: (?:fatal )?(?:error|warning): ")
_NOISE = re.compile(
    r"make(?:\[\d+\])?: |  [A-Z][A-Z0-9_]+ +(?:\[M\] +)?\S|cc1: |compilation terminated"
)

# Errors without a source line, the most telling first.
_LINKER = r"\S*ld(?:\.lld|\.bfd)?(?:-\d+)?: "
_OTHERS = tuple(
    re.compile(pattern)
    for pattern in (
        r"ERROR: modpost: .*",
        r".*\bundefined (?:reference to|symbol:?) .*",
        _LINKER + r"(?!warning).*",
        r"\S+: error: objtool: .*",
        r"FAILED.*|BTF: .*FAILED.*",
        r"ERROR: .*",
        r"error: .*",
        r"make(?:\[\d+\])?: \*\*\* No rule to make target .*",
        r"(?:/bin/)?sh: .*not found.*",
    )
)


@dataclass(frozen=True, kw_only=True)
class BuildError:
    """What went wrong first.

    Attributes:
        file, line: where; None if no source line is at fault.
        what: the compiler's own words.
        excerpt: the compiler's excerpt of the source, lines.
        host: it was a program for the host, not the kernel.
    """

    what: str
    file: str | None = None
    line: int | None = None
    excerpt: tuple[str, ...] = ()
    host: bool = False

    @property
    def text(self) -> str:
        """What and excerpt, for people."""
        return "\n".join((self.what, *self.excerpt))


def first_error(output: str, *, source: Path | None = None) -> BuildError | None:
    """The first error in the output of a build, or None if there is none to be seen.

    Args:
        source: paths below it are shown from there.
    """
    lines = output.splitlines()
    for index, line in enumerate(lines):
        found = _COMPILER.match(line)
        if found and not found["file"].startswith("make"):
            file = _below(found["file"], source)
            return BuildError(
                file=file,
                line=int(found["line"]),
                what=found["what"],
                excerpt=_excerpt(lines, index),
                host=_is_host(lines, index, file),
            )
        found = _MAKEFILE.fullmatch(line)
        if found and not _FAILED_TARGET.match(found["what"]):
            return BuildError(
                file=_below(found["file"], source), line=int(found["line"]), what=found["what"]
            )
    for pattern in _OTHERS:
        for index, line in enumerate(lines):
            if pattern.match(line.strip()):
                return BuildError(what=line.strip(), excerpt=_following(lines, index, pattern))
    return None


def _below(file: str, source: Path | None) -> str:
    if source is not None:
        file = file.removeprefix(f"{source}/")
    return re.sub(r"^(?:\.\./)+", "", file).removeprefix("./")


def _excerpt(lines: list[str], index: int) -> tuple[str, ...]:
    """The lines after an error that belong to it: its source lines, its notes."""
    excerpt: list[str] = []
    for line in lines[index + 1 : index + 1 + EXCERPT_LINES]:
        if _NEXT.match(line) or _NOISE.match(line):
            break
        if not re.match(r"\s", line) and not _CONTEXT.match(line):
            break
        excerpt.append(line)
    return tuple(excerpt)


def _following(lines: list[str], index: int, pattern: re.Pattern[str]) -> tuple[str, ...]:
    """More of the same kind, such as modpost's other symbols."""
    more = [line.strip() for line in lines[index + 1 :] if pattern.match(line.strip())]
    return tuple(dict.fromkeys(more))[:5]


def _is_host(lines: list[str], index: int, file: str) -> bool:
    """Whether it was a program for the host: kbuild says HOSTCC, and where it lives."""
    before = "\n".join(lines[max(0, index - 3) : index])
    return "HOSTCC" in before or file.startswith(("scripts/", "/usr/include/"))
