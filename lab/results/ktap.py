# SPDX-License-Identifier: GPL-2.0-only
"""Reads KTAP, the kernel's dialect of the Test Anything Protocol.

Source: Documentation/dev-tools/ktap.rst, and what kselftest's runner and
KUnit print in truth: the runner nests a program's own results as comments
("# ok 1 ..."), KUnit indents them by four blanks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

Status = Literal["passed", "failed", "skipped"]

_STAMP = re.compile(r"^(?:<\d+>)?\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? ?")
_DEPTH = re.compile(r"^(?:# |    )*")
_RESULT = re.compile(r"(?P<verdict>not ok|ok)\s+(?P<number>\d+)(?:\s+-)?(?:\s+(?P<rest>.*))?")
_PLAN = re.compile(r"1\.\.(?P<count>\d+)(?:\s*#\s*SKIP\b\s*(?P<why>.*))?", re.IGNORECASE)
_DIRECTIVE = re.compile(
    r"(?<!\\)#\s*(?P<word>SKIP|TODO|XFAIL|TIMEOUT|ERROR|exit=\d+)\b:?\s*(?P<why>.*)$", re.IGNORECASE
)
_VERSION = re.compile(r"(?:K?TAP) version \d+")

#: A failure that its author knows of is none (ktap.rst).
_FORGIVEN = {"TODO": "passed", "XFAIL": "passed", "SKIP": "skipped"}


@dataclass(frozen=True, kw_only=True)
class KtapTest:
    """One result line, with what came before it.

    Attributes:
        number: as the line says, counted from 1.
        name: the description, without any directive.
        status: a known failure (TODO, XFAIL) counts as passed.
        why: what stands behind the directive.
        parts: results nested in it.
        lines: what was printed for it, without stamps and nesting.
    """

    number: int
    name: str
    status: Status
    why: str = ""
    parts: tuple[KtapTest, ...] = ()
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Ktap:
    """All that one stream says.

    Attributes:
        tests: results of the outermost level, in order.
        wrong: what breaks the protocol, a sentence each; a stream with
            anything wrong has not passed.
        why_not: why the whole of it was skipped; None if it was not.
    """

    tests: tuple[KtapTest, ...]
    wrong: tuple[str, ...] = ()
    why_not: str | None = None

    @property
    def status(self) -> Status:
        """Failed if anything failed or is wrong; skipped if nothing ran."""
        if self.wrong or any(test.status == "failed" for test in self.tests):
            return "failed"
        if self.why_not is not None or all(test.status == "skipped" for test in self.tests):
            return "skipped"
        return "passed"


def parse(text: str) -> Ktap:
    """Read a stream: a program's output, or a kernel log with its time stamps."""
    reader = _Reader()
    for line in text.splitlines():
        reader.take(_STAMP.sub("", line))
    return reader.end()


def leaves(tests: tuple[KtapTest, ...], *, above: str = "") -> Iterator[tuple[str, KtapTest]]:
    """Every result that has none below it, with its path of names."""
    for test in tests:
        path = f"{above}{test.name}"
        if test.parts:
            yield from leaves(test.parts, above=f"{path}: ")
        else:
            yield path, test


def complaints(ktap: Ktap) -> list[str]:
    """Why a stream has not passed, a line each."""
    bad = [
        f"{name}: {test.why or 'not ok'}"
        for name, test in leaves(ktap.tests)
        if test.status == "failed"
    ]
    return [*ktap.wrong, *bad]


def differences(one: Ktap, other: Ktap) -> list[str]:
    """What two runs of the same tests do not agree about, a line each."""
    mine, theirs = (
        {name: test.status for name, test in leaves(ktap.tests)} for ktap in (one, other)
    )
    lines = [
        f"{name}: {mine.get(name, 'absent')}, {theirs.get(name, 'absent')}"
        for name in {**mine, **theirs}
        if mine.get(name) != theirs.get(name)
    ]
    alone = set(one.wrong) ^ set(other.wrong)
    return lines + [f"only one of them: {what}" for what in sorted(alone)]


def reasons(ktap: Ktap) -> list[str]:
    """Why a stream was skipped, in the words of its tests, each once."""
    said = [line for test in ktap.tests for line in test.lines if "SKIP" in line]
    said = said or [test.why for _, test in leaves(ktap.tests) if test.why]
    return list(dict.fromkeys(said)) or [ktap.why_not or "it says SKIP"]


class _Level:
    """Results of one depth that wait for the result line of the depth above."""

    def __init__(self) -> None:
        self.tests: list[KtapTest] = []
        self.planned: int | None = None
        self.lines: list[str] = []
        self.wrong: list[str] = []
        self.why_not: str | None = None

    def take(self, text: str, below: _Level | None) -> bool:
        """Read a line of this level; whether it was a result."""
        plan = _PLAN.fullmatch(text)
        if plan:
            self.planned = int(plan["count"])
            if self.planned == 0:
                self.why_not = plan["why"] or "nothing planned"
            return False
        found = _RESULT.fullmatch(text)
        if not found:
            self.lines.append(text)
            return False
        self._result(found, below)
        return True

    def _result(self, found: re.Match[str], below: _Level | None) -> None:
        number, rest = int(found["number"]), found["rest"] or ""
        directive = _DIRECTIVE.search(rest)
        name = (rest[: directive.start()] if directive else rest).strip()
        status: Status = "passed" if found["verdict"] == "ok" else "failed"
        if directive:
            status = _FORGIVEN.get(directive["word"].upper(), status)  # type: ignore[assignment]
        if number != len(self.tests) + 1:
            self.wrong.append(f"result {number} (`{name}`) comes as number {len(self.tests) + 1}")
        test = KtapTest(
            number=number,
            name=name or f"test {number}",
            status=status,
            why=f"{directive['word']} {directive['why']}".strip() if directive else "",
            lines=tuple(self.lines + (below.lines if below else [])),
        )
        self.lines = []
        if below:
            test = replace(test, parts=tuple(below.tests))
            self.wrong += [f"{test.name}: {what}" for what in below.end()]
            if status == "passed" and any(part.status == "failed" for part in below.tests):
                self.wrong.append(f"`{test.name}` says ok, and a part of it failed")
        self.tests.append(test)

    def end(self) -> list[str]:
        if self.planned is not None and self.planned != len(self.tests):
            return [*self.wrong, f"{self.planned} results planned, {len(self.tests)} came"]
        return self.wrong


class _Reader:
    def __init__(self) -> None:
        self.levels = [_Level()]

    def take(self, line: str) -> None:
        prefix = _DEPTH.match(line)
        assert prefix  # it matches nothing as well
        depth = len(re.findall(r"# |    ", prefix[0]))
        text = line[prefix.end() :].rstrip()
        if _VERSION.fullmatch(text):
            return
        if not (_RESULT.fullmatch(text) or _PLAN.fullmatch(text)):
            # A comment belongs to whatever comes next, at any depth.
            self.levels[-1].lines.append(text)
            return
        while len(self.levels) <= depth:
            self.levels.append(_Level())
        below = self.levels[depth + 1] if len(self.levels) > depth + 1 else None
        if self.levels[depth].take(text, below):
            del self.levels[depth + 1 :]

    def end(self) -> Ktap:
        top = self.levels[0]
        wrong = list(top.end())
        if len(self.levels) > 1 and any(level.tests for level in self.levels[1:]):
            wrong.append("it ends within a test")
        if not top.tests and top.why_not is None:
            wrong.append("there is no result in it")
        return Ktap(tests=tuple(top.tests), wrong=tuple(wrong), why_not=top.why_not)
