# SPDX-License-Identifier: GPL-2.0-only
"""What a person sees of a long step: a bar on a terminal, plain lines otherwise.

Everything goes to standard error, so that a command's ``--json`` output stays
clean.  Steps may nest; on a terminal each gets its own bar below the others.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_INTERVAL = 10.0
"""Seconds between two plain lines about the same step."""


def seconds(value: float) -> str:
    """A duration for people: ``0.4 s``, ``12 s``, ``3 min 5 s``."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(value: float) -> str:
    """A size in bytes for people: ``512 B``, ``1.5 MiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


class Step:
    """One long step.  Tell it how far it is; it decides what is worth showing."""

    def __init__(self, label: str, total: int | None) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self.began = time.monotonic()

    def update(
        self, done: int | None = None, *, total: int | None = None, detail: str = ""
    ) -> None:
        """Set how much is done, and of how much; ``detail`` names what is at work now."""
        if total is not None:
            self.total = total
        if done is not None:
            self.done = done
        self.show(detail)

    def advance(self, amount: int = 1, *, detail: str = "") -> None:
        """Add to what is done."""
        self.update(self.done + amount, detail=detail)

    def show(self, detail: str) -> None:
        """Show the present state (each kind of step does it in its own way)."""

    def finish(self, outcome: str) -> None:
        """Show the end: ``outcome`` is "done", "failed" or "interrupted"."""

    @property
    def elapsed(self) -> float:
        """Seconds since the step began."""
        return time.monotonic() - self.began


class PlainStep(Step):
    """For logs and pipes: a line at times, and one at the end."""

    def __init__(self, label: str, total: int | None, stream: TextIO) -> None:
        super().__init__(label, total)
        self.stream = stream
        self.shown = self.began

    def show(self, detail: str) -> None:
        if time.monotonic() - self.shown < PLAIN_INTERVAL:
            return
        self.shown = time.monotonic()
        amount = f" {self.done}/{self.total}" if self.total else ""
        _print(self.stream, f"{self.label}:{amount} after {seconds(self.elapsed)} {detail}")

    def finish(self, outcome: str) -> None:
        _print(self.stream, f"{self.label}: {outcome} in {seconds(self.elapsed)}")


class BarStep(Step):
    """For a terminal: a bar that goes away, and a line that stays."""

    def __init__(self, label: str, total: int | None, bars: Progress) -> None:
        super().__init__(label, total)
        self.bars = bars
        self.task: TaskID = bars.add_task(label, total=total, detail="")

    def show(self, detail: str) -> None:
        self.bars.update(self.task, completed=self.done, total=self.total, detail=detail)

    def finish(self, outcome: str) -> None:
        self.bars.remove_task(self.task)
        self.bars.console.print(
            f"{self.label}: {outcome} in {seconds(self.elapsed)}", highlight=False, markup=False
        )


class _Screen:
    """The one live display that a terminal can have, and how many steps use it."""

    bars: Progress | None = None
    users: int = 0


@contextmanager
def progress(
    label: str, *, total: int | None = None, stream: TextIO | None = None
) -> Iterator[Step]:
    """Show a long step while the block runs.

    Args:
        label: what is done, a few words.
        total: how much there is to do, if it is known.
        stream: where to (standard error).
    """
    stream = stream or sys.stderr
    step: Step
    if _is_terminal(stream):
        bars = _open_screen()
        step = BarStep(label, total, bars)
    else:
        bars = None
        step = PlainStep(label, total, stream)
    outcome = "failed"
    try:
        yield step
        outcome = "done"
    except (KeyboardInterrupt, SystemExit):
        outcome = "interrupted"
        raise
    finally:
        step.finish(outcome)
        if bars is not None:
            _close_screen()


def note(message: str, *, stream: TextIO | None = None) -> None:
    """Say one line, above the bars if there are any."""
    if stream is None and _Screen.bars is not None:
        _Screen.bars.console.print(message, highlight=False, markup=False)
    else:
        _print(stream or sys.stderr, message)


def _print(stream: TextIO, line: str) -> None:
    print(line.rstrip(), file=stream, flush=True)


def _is_terminal(stream: TextIO) -> bool:
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def _open_screen() -> Progress:
    # rich takes a tenth of a second to import, so only those who need it pay.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if _Screen.bars is None:
        _Screen.bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=Console(stderr=True),
            transient=True,
        )
        _Screen.bars.start()
    _Screen.users += 1
    return _Screen.bars


def _close_screen() -> None:
    _Screen.users -= 1
    if _Screen.users == 0 and _Screen.bars is not None:
        _Screen.bars.stop()
        _Screen.bars = None
