# SPDX-License-Identifier: GPL-2.0-only
"""What the kernel said that somebody must answer for."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Event:
    """One report of the kernel, as cut out of its log.

    Attributes:
        kind: the kind that the splat policy gives it ("oops", "kasan", ...).
        severity: "fatal" (the machine is lost), "splat" (a test fails for it)
            or "note" (kept in the time line, nobody fails for it).
        title: the line that decided the kind, without its time stamp.
        lines: the whole report, without time stamps.
        stack: the frames that matter, innermost first, as the kernel wrote
            them ("function+0x12/0x40 [module]").
        fingerprint: 12 hex digits, equal for the same kind at the same place;
            offsets and addresses do not go into it.
        line: where the report starts in the log, counted from 1.
        time: seconds of the guest's clock at that line.
    """

    kind: str
    severity: str
    title: str
    lines: tuple[str, ...]
    stack: tuple[str, ...]
    fingerprint: str
    line: int
    time: float

    @property
    def text(self) -> str:
        """The report as one string, lines joined."""
        return "\n".join(self.lines)
