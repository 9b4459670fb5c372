# SPDX-License-Identifier: GPL-2.0-only
"""Whose fault it is: the user's, the host's, the kernel's, or the lab's own.

Every error that reaches a person is one of these, and prints as one message
that says where, what is wrong and what would be right.  The class decides the
exit status of the command (see docs/architecture.md, "Exit status").
"""

from __future__ import annotations

from pathlib import Path


class LabError(Exception):
    """The lab itself could not do its part (exit status 4).

    Args:
        what: what is wrong, one sentence without a full stop.
        file: the file that is at fault, if there is one.
        line: the line in that file, counted from 1.
        right: what would be right, or what to do next.
    """

    exit_status = 4

    def __init__(
        self,
        what: str,
        *,
        file: Path | str | None = None,
        line: int | None = None,
        right: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.file = None if file is None else Path(file)
        self.line = line
        self.right = right

    def __str__(self) -> str:
        where = ""
        if self.file is not None:
            where = f"{self.file}:{self.line}: " if self.line is not None else f"{self.file}: "
        return where + self.what + (f"; {self.right}" if self.right else "")


class UserError(LabError):
    """Wrong use or bad input: a manifest, patch, symbol, script, source (exit 2)."""

    exit_status = 2


class HostError(LabError):
    """The host lacks something: a program, a package, disk, memory, a right (exit 3)."""

    exit_status = 3


class KernelError(LabError):
    """The kernel under test is at fault: it does not compile, boot or live (exit 1)."""

    exit_status = 1


class InfraError(LabError):
    """The lab could not do its part: QEMU died, a socket broke (exit 4)."""
