# SPDX-License-Identifier: GPL-2.0-only
"""Whose fault it is: the user's, the host's, the kernel's, or the lab's own.

Every error that reaches a person is one of these, and prints as one message
that says where, what is wrong and what would be right.  The class decides the
exit status of the command (see docs/architecture.md, "Exit status").
"""

from __future__ import annotations

import errno
import os
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


_HOST_LACKS = {
    errno.EACCES: "the right to it, or a place that is yours",
    errno.EPERM: "the right to it, or a place that is yours",
    errno.EROFS: "a place that can be written to",
    errno.ENOSPC: "free some space, or look at `lab gc`",
    errno.EDQUOT: "free some space, or look at `lab gc`",
    errno.ENOMEM: None,
    errno.EMFILE: "raise `ulimit -n`",
    errno.ENFILE: None,
}
"""What the system refuses, and what would help."""

_NO_PATH = (errno.ENAMETOOLONG, errno.ELOOP)


def of_system(error: OSError) -> LabError | None:
    """What the system refused, for people; None where it is the lab's own fault.

    Rooms that know what they were about say so themselves; this is for the rest.
    """
    name = error.filename
    file = os.fsdecode(name) if isinstance(name, str | bytes) else None
    what = error.strerror or str(error)
    if error.errno in _HOST_LACKS:
        return HostError(what, file=file, right=_HOST_LACKS[error.errno])
    if error.errno in _NO_PATH:
        return UserError(what, file=file, right="give a path that there can be")
    if error.errno == errno.ENOENT and file is None and _is_nowhere():
        return UserError("the directory that this was called in is gone", right="cd to another")
    return None


def _is_nowhere() -> bool:
    try:
        Path.cwd()
    except FileNotFoundError:
        return True
    return False
