# SPDX-License-Identifier: GPL-2.0-only
"""Kernel log lines in, events out.  Pure: no files, no clocks, no threads."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from lab.watch.event import Event
from lab.watch.policy import Policy, Rule
from lab.watch.stack import fingerprint, stack, starts_stack

# "[    1.234567] text", with PRINTK_CALLER "[    1.234567][   T12] text", and
# with a raw kmsg's "<4>" before it.
_LINE = re.compile(r"^(?:<\d+>)?\[\s*(\d+\.\d+)\](?:\[\s*[TC]\d+\])? ?(.*)$")
_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[c=>78])")
_CUT = "------------[ cut here ]------------"
_END = re.compile(r"^---\[ end (trace|Kernel panic)")
_RULER = re.compile(r"^={20,}$")

# Seconds of the guest's clock after which a line belongs to nothing before it.
_QUIET = 2.0
# Seconds between a message and the report that it announces.
_BREATH = 0.02
_LONGEST = 400
# Lines that a report may have before the one that names it.
_LONGEST_HEAD = 30


@dataclass
class _Report:
    """A report that is still being read."""

    line: int
    time: float
    last: float
    lines: list[str] = field(default_factory=list)
    best: tuple[int, Rule] | None = None
    title: str = ""
    stack_seen: bool = False

    def name(self, text: str, found: tuple[int, Rule]) -> None:
        if self.best is None or found[0] < self.best[0]:
            self.best, self.title = found, text


class Parser:
    """Reads a log line by line.

    A line without the kernel's time stamp came from user space and is ignored:
    a program that prints "BUG:" does not make a kernel bug.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._open: _Report | None = None
        self._number = 0

    @property
    def open(self) -> bool:
        """True while a report has begun and its end was not seen."""
        return self._open is not None and self._open.best is not None

    def feed(self, line: str) -> list[Event]:
        """Take one line; return the events that it completed."""
        self._number += 1
        found = _LINE.match(_ESCAPE.sub("", line).rstrip("\r\n"))
        if found is None:
            return []
        return self._kernel_line(float(found[1]), found[2].rstrip())

    def flush(self) -> list[Event]:
        """End the report that is open, if there is one."""
        report, self._open = self._open, None
        if report is None or report.best is None:
            return []
        return [self._event(report, report.best[1])]

    def _kernel_line(self, time: float, text: str) -> list[Event]:
        done: list[Event] = []
        if self._open is not None and self._is_over(self._open, time, text):
            done = self.flush()
        if not self.open and (text == _CUT or _RULER.match(text)):
            self._open = _Report(line=self._number, time=time, last=time, lines=[text])
            return done
        # The end of a panic repeats its first line.
        matched = None if _END.match(text) else self._policy.rule(text)
        if matched is not None:
            done += self._headline(time, text, matched)
        elif self._open is not None:
            self._append(self._open, time, text)
            if self.open and (_END.match(text) or _RULER.match(text)):
                done += self.flush()
        return done

    def _is_over(self, report: _Report, time: float, text: str) -> bool:
        if text == _CUT:
            # BUG() after a message that names it, as usercopy does: one report.
            return report.best is None or report.stack_seen or time - report.last > _BREATH
        longest = _LONGEST if report.best is not None else _LONGEST_HEAD
        return time - report.last > _QUIET or len(report.lines) >= longest

    def _headline(self, time: float, text: str, matched: tuple[int, Rule]) -> list[Event]:
        rule = matched[1]
        done: list[Event] = []
        report = self._open
        if report is not None and not self._joins(report, rule):
            done = self.flush()
            report = None
        if report is None:
            report = self._open = _Report(line=self._number, time=time, last=time)
        self._append(report, time, text)
        if not (rule.inside and report.stack_seen):
            report.name(text, matched)
        if rule.single:
            done += self.flush()
        return done

    def _joins(self, report: _Report, rule: Rule) -> bool:
        """Whether a headline belongs to the report that is open."""
        if report.best is None or rule.inside:
            return True
        if rule.single or "panic" in rule.kind:
            return False
        return not report.stack_seen

    def _append(self, report: _Report, time: float, text: str) -> None:
        report.lines.append(text)
        report.last = time
        report.stack_seen = report.stack_seen or starts_stack(text)

    def _event(self, report: _Report, rule: Rule) -> Event:
        frames = stack(report.lines, skip=self._policy.skip)
        return Event(
            kind=rule.kind,
            severity=rule.severity,
            title=report.title,
            lines=tuple(report.lines),
            stack=frames,
            fingerprint=fingerprint(rule.kind, report.title, frames),
            line=report.line,
            time=report.time,
        )


def parse(lines: Iterable[str], *, policy: Policy) -> list[Event]:
    """Every event in a whole log, in its order."""
    parser = Parser(policy)
    events = [event for line in lines for event in parser.feed(line)]
    return events + parser.flush()
