# SPDX-License-Identifier: GPL-2.0-only
"""How a machine or a command on it can fail.

`CommandFailed` and `CommandTimeout` are a test's business (status "failed");
`GuestSilent` and `MachineDied` are judged with the kernel log at hand: a splat
or panic makes them "kernel", else they are "infra".
"""

from __future__ import annotations

from lab.errors import InfraError


class CommandFailed(AssertionError):
    """A command on a guest ended otherwise than the test's author said."""

    def __init__(
        self,
        *,
        node: str,
        command: str,
        status: int,
        stdout: str,
        stderr: str,
        expected: str = "success",
    ) -> None:
        self.node = node
        self.command = command
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
        parts = [f"{node}: `{command}` ended with status {status}, expected {expected}"]
        for title, text in (("stdout", stdout), ("stderr", stderr)):
            if text.strip():
                parts.append(f"{title}:\n{text.rstrip()}")
        super().__init__("\n".join(parts))


class CommandTimeout(AssertionError):
    """A command on a guest took longer than its limit and was ended there."""

    def __init__(
        self, *, node: str, command: str, seconds: float, stdout: str = "", stderr: str = ""
    ) -> None:
        self.node = node
        self.command = command
        self.seconds = seconds
        self.stdout = stdout
        self.stderr = stderr
        parts = [f"{node}: `{command}` did not end within {seconds:g} s"]
        for title, text in (("stdout", stdout), ("stderr", stderr)):
            if text.strip():
                parts.append(f"{title} so far:\n{text.rstrip()}")
        super().__init__("\n".join(parts))


class OutputCut(AssertionError):
    """A command on a guest wrote more than is kept, and its author wants what it wrote."""


class GuestSilent(InfraError):
    """The guest's agent never answered, or answers no more; QEMU still runs."""


class GuestPanicked(GuestSilent):
    """The guest's kernel panicked: QEMU said so."""


class GuestNeverAnswered(GuestSilent):
    """The guest has not answered since its start: nothing but its kernel has run for sure."""


class ConsoleFlooded(GuestSilent):
    """The guest wrote so much to its console that it was ended."""


class MachineDied(InfraError):
    """The machine is gone although nobody asked for it.

    Args:
        what: the message.
        reason: "qemu" (QEMU crashed or never started), QEMU's own reason for
            its end ("guest-shutdown", "guest-reset", ...), or "stopped" for a
            command to a machine that was stopped.
    """

    def __init__(self, what: str, *, reason: str) -> None:
        super().__init__(what)
        self.reason = reason


class CommandRefused(InfraError):
    """The guest's agent could not start a command: no memory, no such program."""


class LineRefused(InfraError):
    """A guest's kernel would not do a line of its configuration.

    Args:
        node: the machine's name.
        said: the line's number, counted from 1, and the kernel's own words.
    """

    def __init__(self, node: str, said: str) -> None:
        number, _, self.why = said.partition(" ")
        super().__init__(f"{node} cannot be made a node: line {said}")
        #: Counted from 0; None where it was none of the lines.
        self.index = int(number) - 1 if number.isdigit() else None


class GuestFileError(InfraError):
    """A file of the guest's could not be read or written."""
