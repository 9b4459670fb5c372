# SPDX-License-Identifier: GPL-2.0-only
"""Stack frames to file and line, with binutils on vmlinux and modules.

Lazy: nothing is read before a stack is asked for, and then once a process.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from lab.errors import LabError
from lab.process import run
from lab.watch.stack import Frame, frame, stopped_at

_SECTION = re.compile(r"^\s*\[\s*(\d+)\]\s+(\S+)")
_SYMBOL = re.compile(
    r"^\s*\d+:\s+([0-9a-f]+)\s+(0x[0-9a-f]+|\d+)\s+(?:FUNC|NOTYPE)\s+\S+\s+\S+\s+(\d+)\s+(\S+)"
)
#: Seconds; addr2line reads 100 MiB of DWARF for the first address.
_TIMEOUT = 120.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a frame is in the source; inlined callers follow as places of their own."""

    frame: str
    function: str
    file: str
    line: int

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else "?"
        return f"{self.frame:55} {where}" + (f" ({self.function})" if self.function else "")


class _Object:
    """One ELF file with DWARF."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def symbols(self) -> dict[str, list[tuple[int, int, str]]]:
        """name -> (address, size, section) of each function of that name."""
        wide = ("readelf", "--wide")
        said = run([*wide, "--section-headers", self.path], timeout=_TIMEOUT).stdout
        sections = {m[1]: m[2] for text in said.splitlines() if (m := _SECTION.match(text))}
        found: dict[str, list[tuple[int, int, str]]] = {}
        table = run([*wide, "--syms", self.path], timeout=_TIMEOUT).stdout
        for text in table.splitlines():
            match = _SYMBOL.match(text)
            if match:
                entry = (int(match[1], 16), int(match[2], 0), sections.get(match[3], ""))
                found.setdefault(match[4], []).append(entry)
        return found

    def address(self, wanted: Frame) -> tuple[int, str] | None:
        """Address and section of a frame; static namesakes are told apart by their size."""
        known = self.symbols.get(wanted.symbol, [])
        # kallsyms gives the distance to the next symbol, padding included.
        near = sorted(known, key=lambda entry: abs(entry[1] - wanted.size))
        if not near:
            return None
        return near[0][0] + wanted.offset, near[0][2]

    def places(self, address: int, section: str, *, shown: str) -> list[Place]:
        """The source places of an address, the innermost inlined one first."""
        words: list[str | Path] = ["addr2line", "--functions", "--inlines", "--exe", self.path]
        if self.path.suffix == ".ko" or ".ko." in self.path.name:
            words += ["--section", section]
        said = run([*words, f"{address:#x}"], timeout=_TIMEOUT).stdout.splitlines()
        return [_place(shown, said[i], said[i + 1]) for i in range(0, len(said) - 1, 2)]


class Symbols:
    """Resolves frames of one kernel and its modules.

    Args:
        vmlinux: with DWARF.
        modules: directories below which unstripped modules lie.
    """

    def __init__(self, vmlinux: Path, modules: Iterable[Path] = ()) -> None:
        self._vmlinux = vmlinux
        self._directories = tuple(modules)
        self._objects: dict[str, _Object | None] = {}

    def resolve(self, stack: Iterable[str], *, report: Iterable[str]) -> list[Place]:
        """Every frame of a report's stack with its place; unknown ones with an empty place."""
        exact = stopped_at(report)
        return [place for text in stack for place in self._resolve(text, exact=text in exact)]

    def _resolve(self, text: str, *, exact: bool) -> list[Place]:
        unknown = [Place(frame=text, function="", file="", line=0)]
        wanted = frame(text)
        thing = self._object(wanted.module) if wanted else None
        found = thing.address(wanted) if thing and wanted else None
        if thing is None or found is None:
            return unknown
        address, section = found
        # A return address: the call is before, and after one that never returns may
        # be the next function.
        places = thing.places(address if exact else address - 1, section, shown=text)
        return places or unknown

    def _object(self, module: str | None) -> _Object | None:
        name = module or ""
        if name not in self._objects:
            path = self._find(module) if module else self._vmlinux
            self._objects[name] = _Object(path) if path else None
        return self._objects[name]

    def _find(self, module: str) -> Path | None:
        # A module's file may spell - where its name has _.
        wanted = {f"{module}.ko", f"{module.replace('_', '-')}.ko"}
        for directory in self._directories:
            for path in directory.rglob("*.ko"):
                if path.name in wanted:
                    return path
        return None


def decode(stack: Iterable[str], symbols: Symbols, *, report: Iterable[str]) -> str:
    """A report's stack as text with files and lines; without them where binutils fail."""
    frames = list(stack)
    try:
        return "\n".join(str(place) for place in symbols.resolve(frames, report=report))
    except LabError as error:
        return "\n".join([*frames, f"(not resolved: {error})"])


def _place(shown: str, function: str, where: str) -> Place:
    file, _, number = where.rpartition(":")
    digits = re.match(r"\d+", number)
    known = digits is not None and file not in ("??", "")
    return Place(
        frame=shown,
        function=function if function != "??" else "",
        # The kernel is built in a place that is called "./".
        file=posixpath.normpath(file) if known else "",
        line=int(digits[0]) if known and digits else 0,
    )
