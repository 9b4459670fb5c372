# SPDX-License-Identifier: GPL-2.0-only
"""A person at a terminal of their own, for the commands that want one."""

from __future__ import annotations

import os
import re
import select
import subprocess
import termios
import time
from collections.abc import Mapping
from pathlib import Path

#: Seconds for one answer; the host may be busy.
ANSWER = 120.0


class Terminal:
    """Runs a command as a person's shell does: the terminal's keys and its size are for it.

    Args:
        argv: the command.
        environment: its variables, ours if None.
        patience: multiplies ANSWER.
    """

    def __init__(
        self,
        *argv: str | Path,
        environment: Mapping[str, str] | None = None,
        patience: float = 1.0,
    ) -> None:
        self.answer = ANSWER * patience
        self.master, theirs = os.openpty()
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *map(str, argv)],
            env=environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.seen = ""

    def expect(self, pattern: str) -> re.Match[str]:
        """Wait for it; what comes after stays to be seen."""
        deadline = time.monotonic() + self.answer
        while not (match := re.search(pattern, self.seen)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.seen!r}"
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.seen += os.read(self.master, 65536).decode(errors="replace")
                except OSError:  # the other end is closed
                    raise AssertionError(f"no {pattern!r} in {self.seen!r}") from None
        self.seen = self.seen[match.end() :]
        return match

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, *, rows: int, columns: int) -> None:
        """Make the window another size; whoever runs in it is told."""
        termios.tcsetwinsize(self.master, (rows, columns))

    def echoes(self) -> bool:
        """Whether it shows what is typed, as it does unless a program wants the keys raw."""
        return bool(termios.tcgetattr(self.master)[3] & termios.ECHO)

    def ended(self) -> int:
        """The command's status, once it has ended."""
        return self.process.wait(self.answer)

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        os.close(self.master)
