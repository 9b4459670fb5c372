# SPDX-License-Identifier: GPL-2.0-only
"""What a person sees of a long step, on a terminal and off it."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys

import pytest

from lab import progress as progress_module
from lab.progress import progress, seconds, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (12.4, "12 s"), (185, "3 min 5 s"), (3700, "1 h 1 min")],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")]
)
def test_size(value: float, text: str) -> None:
    assert size(value) == text


def test_plain_lines_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with progress("building", total=100, stream=stream) as step:
        for _ in range(99):
            step.advance(detail="x.o")
        assert stream.getvalue() == ""
        monkeypatch.setattr(progress_module, "PLAIN_INTERVAL", 0)
        step.advance(detail="last.o")
    assert stream.getvalue().splitlines()[0] == "building: 100/100 after 0.0 s last.o"
    assert stream.getvalue().splitlines()[1] == "building: done in 0.0 s"


@pytest.mark.parametrize(
    ("error", "word"), [(ValueError(), "failed"), (KeyboardInterrupt(), "interrupted")]
)
def test_the_end_is_told_as_it_was(error: BaseException, word: str) -> None:
    stream = io.StringIO()
    with pytest.raises(type(error)), progress("building", stream=stream):
        raise error
    assert f"building: {word} in" in stream.getvalue()


NESTED = """
from lab.progress import note, progress
with progress("outer", total=2) as outer:
    with progress("inner") as inner:
        inner.update(5, total=10, detail="[red]x.o")
    note("a [bold] word")
    outer.advance()
"""


def test_on_a_terminal_steps_nest_and_leave_a_line_each() -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", NESTED],
        stderr=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # Linux's way of saying that the other end has closed
        pass
    os.close(ours)
    out, _ = child.communicate(timeout=10)
    assert child.returncode == 0
    assert out == b""
    for words in (b"inner: done in", b"a [bold] word", b"outer: done in"):
        assert words in shown
