# SPDX-License-Identifier: GPL-2.0-only
"""Where machines come from: one small protocol, several backends."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from lab.vm.machine import Machine
from lab.vm.spec import MachineSpec


class Provider(Protocol):
    """Starts machines; every one it started ends with `close`.

    `start` may be called from several threads at once.
    """

    name: str

    def start(self, spec: MachineSpec, directory: Path) -> Machine:
        """Give a machine that has answered its first command.

        Args:
            spec: what it is.
            directory: made if need be; gets console.log, kernel.log and argv.

        Raises:
            InfraError: the backend could not start it.
            GuestSilent: it runs but never answered (GuestPanicked: why).
        """
        ...

    def prepare(self, spec: MachineSpec) -> None:
        """Make what machines of a spec start from (a snapshot), if it is not there yet.

        Takes as long as a boot, once; no fault if it cannot be made.
        """
        ...

    def close(self) -> None:
        """End every machine that is still running, and free what it held."""
        ...
