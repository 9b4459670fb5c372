# SPDX-License-Identifier: GPL-2.0-only
"""Failures show the author's frames only: how the lab waits says nothing about a test."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path
from types import TracebackType

_LAB = str(Path(__file__).resolve().parent.parent) + os.sep
_LIBRARIES = tuple(
    os.path.realpath(sysconfig.get_path(name)) + os.sep for name in ("stdlib", "purelib")
)


def authors_frames(trace: TracebackType | None) -> TracebackType | None:
    """The same traceback without the lab's own frames at its end.

    As it is with LAB_DEBUG=1, or where the lab has no part in it.
    """
    frames = list(_walk(trace))
    last = max((i for i, frame in enumerate(frames) if not _foreign(frame)), default=-1)
    tail = frames[last + 1 :]
    if last < 0 or os.environ.get("LAB_DEBUG") == "1" or not any(_is_lab(f) for f in tail):
        return trace
    result: TracebackType | None = None
    for frame in reversed(frames[: last + 1]):
        result = TracebackType(result, frame.tb_frame, frame.tb_lasti, frame.tb_lineno)
    return result


def failing_line(trace: TracebackType | None, file: Path) -> int | None:
    """The line of a file that was running when the error came, counted from 1."""
    path = os.path.realpath(file)
    lines = [
        frame.tb_lineno
        for frame in _walk(trace)
        if os.path.realpath(frame.tb_frame.f_code.co_filename) == path
    ]
    return lines[-1] if lines else None


def _walk(trace: TracebackType | None) -> list[TracebackType]:
    found = []
    while trace is not None:
        found.append(trace)
        trace = trace.tb_next
    return found


def _is_lab(frame: TracebackType) -> bool:
    return os.path.realpath(frame.tb_frame.f_code.co_filename).startswith(_LAB)


def _foreign(frame: TracebackType) -> bool:
    file = frame.tb_frame.f_code.co_filename
    return file.startswith("<") or os.path.realpath(file).startswith((_LAB, *_LIBRARIES))
