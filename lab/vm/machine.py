# SPDX-License-Identifier: GPL-2.0-only
"""A running machine, in the words of a test."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from lab.vm.errors import CommandFailed, CommandTimeout
from lab.vm.spec import MachineSpec

#: Seconds that a command may take unless its caller says otherwise.
COMMAND_TIMEOUT = 30.0


@dataclass(frozen=True)
class Completed:
    """How a command ended: 128 + signal number if a signal ended it, as in sh."""

    status: int
    stdout: str
    stderr: str


class Channel(Protocol):
    """Runs commands and moves files, out of the way of the network under test."""

    def run(self, command: str, *, timeout: float, stdin: bytes | None) -> Completed: ...
    def read(self, path: str, *, timeout: float) -> bytes: ...
    def write(self, path: str, data: bytes, *, mode: int, timeout: float) -> None: ...


class Body(Protocol):
    """The process or domain behind a machine."""

    @property
    def pid(self) -> int | None: ...
    def alive(self) -> bool: ...
    def wait(self, timeout: float) -> bool:
        """Whether it ended by itself within `timeout` seconds."""
        ...
    def stop(self) -> None:
        """End it at once, and write kernel.log. Stopping twice is fine."""
        ...


class Machine:
    """A guest under the lab's control.

    Every `timeout` is in seconds, for a patience of 1: the spec's patience
    multiplies it. Commands run by `/bin/sh -c` as root. The methods may be
    called from several threads at once.
    """

    def __init__(self, *, spec: MachineSpec, directory: Path, channel: Channel, body: Body,
                 cloned: bool = False) -> None:
        self.spec = spec
        self.name = spec.name
        self.directory = directory
        self.channel = channel
        self.body = body
        self.cloned = cloned

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Machine {self.name}>"
