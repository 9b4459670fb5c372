# SPDX-License-Identifier: GPL-2.0-only
"""Makes a clone itself: its own randomness, clock, name and addresses.

It has a port of its own, and a process in the guest that waits at it, because
the first exec() in a fresh clone takes longer than all the rest of cloning.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from pathlib import Path
from typing import Any

from lab.errors import InfraError, LabError
from lab.vm import argv
from lab.vm.errors import GuestSilent
from lab.vm.spec import MachineSpec

#: Bytes of fresh randomness that a clone gets.
SEED = 64

#: Seconds for the answer; it takes 0.01.
TIMEOUT = 10.0


class Waker:
    """The lab's end of one machine's waking port."""

    def __init__(self, *, node: str, socket: Path, doom: asyncio.Future[LabError]) -> None:
        self.node = node
        self.socket = socket
        self.doom = doom
        self._ends: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def connect(self) -> None:
        """Connect; before the guest looks, which takes a closed port for the end."""
        self._ends = await asyncio.open_unix_connection(str(self.socket))

    async def wake(self, spec: MachineSpec) -> None:
        """Make the guest the machine of this spec.

        Raises:
            GuestSilent: it did not answer.
            InfraError: it could not.
        """
        assert self._ends is not None
        reader, writer = self._ends
        limit = TIMEOUT * spec.patience
        writer.write(words(spec).encode() + b"\n")
        answer = asyncio.ensure_future(reader.readline())
        either: set[asyncio.Future[Any]] = {answer, self.doom}
        try:
            await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if self.doom.done():
                raise self.doom.result()
            said = answer.result().decode().strip() if answer.done() else ""
        finally:
            answer.cancel()
        if not said:
            raise GuestSilent(f"{self.node}: the clone did not wake within {limit:g} s")
        if said != "ok":
            raise InfraError(f"{self.node}: the clone could not set its {said}")

    async def close(self) -> None:
        """Hang up; nobody will wake this machine again."""
        if self._ends is not None:
            self._ends[1].close()
            with contextlib.suppress(OSError):
                await self._ends[1].wait_closed()
            self._ends = None


def words(spec: MachineSpec) -> str:
    """What the guest is told: seed, time, name, and each card's address."""
    cards = [
        f"eth{number}={argv.mac(spec, number, nic)}" for number, nic in enumerate(spec.slots())
    ]
    return " ".join([secrets.token_hex(SEED), str(time.time_ns()), spec.name, *cards])
