# SPDX-License-Identifier: GPL-2.0-only
"""Commands and files by the lab's own program in the guest (vm-images/guest/executor.c).

Only whoever started a machine has it; everybody else has the guest agent. It
says by itself when a command has ended, and starts no program but the shell,
so a command costs half of what it does through the agent, and a fresh clone,
which has to translate all that it executes, gives its first answer in time.

Frames go both ways: kind, number and length, 32 bits each, and so many bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

from lab.errors import InfraError, LabError
from lab.vm import loop
from lab.vm.errors import CommandRefused, CommandTimeout, GuestFileError, GuestSilent
from lab.vm.machine import Completed, RawCompleted

#: Seconds, for a patience of 1, in which the guest must give a sign of life.
SILENCE = 20.0

#: Seconds without one until it is asked for one.
QUIET = 2.0

#: Bytes of one frame of a command's input.
PIECE = 256 * 1024

#: Bytes kept of each of a command's streams; as many as the agent keeps.
KEPT = 16 * 1024 * 1024

#: Seconds that a broken connection waits for the news why it broke.
NEWS = 2.0

#: How the guest calls a full file system, which is its memory.
NO_SPACE = b"No space left"

_HEAD = struct.Struct("<III")


class _To(IntEnum):
    """What the guest is told."""

    WAKE = 1
    RUN = 2
    FEED = 3
    INPUT = 4
    KILL = 5
    PING = 6
    SPARE = 7
    PUT = 8
    GET = 9
    CONFIGURE = 10


class _From(IntEnum):
    """What the guest tells."""

    WOKE = 1
    OUTPUT = 2
    ERROR = 3
    ENDED = 4
    REFUSED = 5
    PONG = 6
    LOST = 7
    READY = 8


@dataclass
class _Request:
    """What is on its way; `answer` is the frame that ended it."""

    answer: asyncio.Future[tuple[_From, bytes]]
    #: Bytes of each stream; None for all.
    keep: int | None
    stdout: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    cut: bool = False

    def completed(self, status: int) -> RawCompleted:
        """What there is of both streams."""
        return RawCompleted(status, bytes(self.stdout), bytes(self.stderr), self.cut)

    def take(self, stream: bytearray, said: bytes) -> None:
        """Keep what there is room for."""
        kept = said if self.keep is None else said[: self.keep - len(stream)]
        stream += kept
        self.cut |= len(kept) < len(said)


class Executor:
    """The lab's end of one machine's executor; any number of commands at once.

    Args:
        node: the machine's name, for messages.
        socket: where QEMU has its port.
        patience: multiplies SILENCE.
        doom: done with the reason once the machine is known to be lost.
    """

    def __init__(
        self, *, node: str, socket: Path, patience: float, doom: asyncio.Future[LabError]
    ) -> None:
        self.node = node
        self.socket = socket
        self.silence = SILENCE * patience
        self.doom = doom
        #: See Channel.
        self.overdue: Callable[[], None] | None = None
        self._numbers = itertools.count(1)
        self._requests: dict[int, _Request] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        #: When it last gave a sign of life, and when it was asked for one since.
        self._heard = 0.0
        self._asked: float | None = None

    async def connect(self) -> None:
        """Connect; before the guest looks, which takes a closed port for the end."""
        reader, self._writer = await asyncio.open_unix_connection(str(self.socket))
        self._reading = asyncio.ensure_future(self._read(reader))

    async def close(self) -> None:
        """Hang up; nobody will speak to this executor again.

        What a guest has not taken is dropped: one that died, or whose QEMU is
        stopped, will not take it any more.
        """
        writer, self._writer = self._writer, None
        if self._reading is not None:
            self._reading.cancel()
        if writer is not None:
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def wake(self, words: str, *, timeout: float) -> None:
        """Make a clone itself; the words are wake.py's.

        Raises:
            GuestSilent: it did not answer within `timeout` seconds.
            InfraError: it could not.
        """
        with self._request(_To.WAKE, words.encode()) as (_, request):
            if not await self._answered(request, timeout):
                raise GuestSilent(f"{self.node}: the clone did not wake within {timeout:g} s")
        wrong = request.answer.result()[1].decode()
        if wrong:
            raise InfraError(f"{self.node}: the clone could not set its {wrong}")

    async def spare(self, *, timeout: float) -> None:
        """Have a shell wait for the next command, in a machine about to be frozen.

        Raises:
            GuestSilent: it did not answer within `timeout` seconds.
        """
        with self._request(_To.SPARE) as (_, request):
            if not await self._answered(request, timeout):
                raise GuestSilent(f"{self.node}: no shell was ready within {timeout:g} s")

    async def write(self, path: str, data: bytes, *, mode: int | None, timeout: float) -> None:
        """Make a guest's file.

        Raises:
            GuestFileError: it cannot be made.
            GuestSilent, MachineDied: the machine is lost, or took longer than `timeout`.
        """
        with self._request(_To.PUT, f"{mode or 0:o} {path}".encode()) as (number, request):
            self._feed(number, data)
            await self._moved(number, request, path, timeout)

    async def read(self, path: str, *, timeout: float) -> bytes:
        """The content of a guest's file.

        Raises:
            as `write`.
        """
        with self._request(_To.GET, path.encode(), keep=None) as (number, request):
            await self._moved(number, request, path, timeout)
        return bytes(request.stdout)

    async def configure(self, lines: str, *, timeout: float) -> str:
        """Make the guest a node of a network; see Channel.

        Raises:
            GuestSilent, MachineDied: the machine is lost, or took longer than `timeout`.
        """
        with self._request(_To.CONFIGURE, lines.encode()) as (_, request):
            if not await self._answered(request, timeout):
                raise GuestSilent(f"{self.node}: it was no node within {timeout:g} s")
        kind, said = request.answer.result()
        return said.decode() if kind is _From.REFUSED else ""

    async def _moved(self, number: int, request: _Request, path: str, timeout: float) -> None:
        if not await self._answered(request, timeout):
            self._tell(_To.KILL, number)
            raise GuestSilent(f"{self.node}: {path} was not moved within {timeout:g} s")
        kind, said = request.answer.result()
        if kind is _From.REFUSED:
            raise GuestFileError(
                f"{self.node}: {path} cannot be {said.decode()}",
                right="is the guest's memory full?" if NO_SPACE in said else None,
            )

    async def run(self, command: str, *, timeout: float, stdin: bytes | None) -> RawCompleted:
        """Run a shell command.

        Raises:
            CommandTimeout: it took longer; its process group was killed.
            CommandRefused: it could not be started.
            GuestSilent, MachineDied: the machine is lost.
        """
        how = _To.RUN if stdin is None else _To.FEED
        with self._request(how, command.encode(), keep=KEPT) as (number, request):
            if stdin is not None:
                self._feed(number, stdin)
            try:
                in_time = await self._answered(request, timeout)
            except asyncio.CancelledError:
                with contextlib.suppress(LabError):
                    await asyncio.shield(self._end(number, request))
                raise
            if not in_time:
                if self.overdue is not None:
                    await asyncio.to_thread(self.overdue)
                await self._end(number, request)
                so_far = request.completed(0).decoded()
                raise CommandTimeout(
                    node=self.node,
                    command=command,
                    seconds=timeout,
                    stdout=so_far.stdout,
                    stderr=so_far.stderr,
                )
        kind, said = request.answer.result()
        if kind is _From.REFUSED:
            raise CommandRefused(f"{self.node}: `{command}` was not started: {said.decode()}")
        return request.completed(int(said))

    @contextlib.contextmanager
    def _request(
        self, kind: _To, said: bytes = b"", *, keep: int | None = 0
    ) -> Iterator[tuple[int, _Request]]:
        """Tell the guest something, and listen to what it has to say about that."""
        number = next(self._numbers)
        request = _Request(asyncio.get_running_loop().create_future(), keep)
        self._requests[number] = request
        try:
            self._tell(kind, number, said)
            yield number, request
        finally:
            del self._requests[number]

    def _feed(self, number: int, data: bytes) -> None:
        for start in range(0, len(data), PIECE):
            self._tell(_To.INPUT, number, data[start : start + PIECE])
        self._tell(_To.INPUT, number, b"")

    async def _end(self, number: int, request: _Request) -> None:
        """Kill a command's process group; what it has said comes before its end.

        Raises:
            GuestSilent, MachineDied: it is the machine that does not go on.
        """
        self._tell(_To.KILL, number)
        if self._asked is None:
            self._ask()
        while not await self._answered(request, self.silence / 4) and self._asked is not None:
            pass

    async def _answered(self, request: _Request, timeout: float) -> bool:
        """Whether the answer came in time, from a guest that lives.

        Raises:
            GuestSilent, MachineDied: it does not.
        """
        clock = asyncio.get_running_loop().time
        began = clock()
        deadline = began + timeout
        assert self._reading is not None
        while not request.answer.done():
            left = deadline - clock()
            if left <= 0 and not self.doom.done():
                return False
            ends: set[asyncio.Future[Any]] = {request.answer, self.doom, self._reading}
            await asyncio.wait(ends, timeout=min(left, QUIET), return_when=asyncio.FIRST_COMPLETED)
            if request.answer.done():
                break
            await self._see_that_it_lives(began, clock())
        # Its exception, if it has one.
        request.answer.result()
        return True

    async def _see_that_it_lives(self, began: float, now: float) -> None:
        assert self._reading is not None
        if self._reading.done():
            # A broken connection comes a moment before the news why it broke.
            await asyncio.wait({self.doom}, timeout=NEWS)
        if self.doom.done():
            raise self.doom.result()
        if self._reading.done():
            raise GuestSilent(f"{self.node}: the guest's executor closed the connection")
        if self._asked is None:
            if now - max(self._heard, began) >= QUIET:
                self._ask()
        elif now - self._asked > self.silence:
            raise GuestSilent(
                f"{self.node}: the guest's executor did not answer within {self.silence:g} s"
            )

    def _ask(self) -> None:
        """Ask for a sign of life."""
        self._asked = asyncio.get_running_loop().time()
        self._tell(_To.PING, 0)

    def _tell(self, kind: _To, number: int, said: bytes = b"") -> None:
        if self.doom.done():
            raise self.doom.result()
        if self._writer is None:
            raise GuestSilent(f"{self.node}: nobody is connected to the guest's executor")
        self._writer.write(_HEAD.pack(kind, number, len(said)) + said)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        clock = asyncio.get_running_loop().time
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                kind, number, length = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                said = await reader.readexactly(length)
                self._heard, self._asked = clock(), None
                self._take(_From(kind), number, said)

    def _take(self, kind: _From, number: int, said: bytes) -> None:
        if kind is _From.LOST:
            self._lose_all()
        request = self._requests.get(number)
        if request is None or request.answer.done():
            return
        if kind is _From.OUTPUT:
            request.take(request.stdout, said)
        elif kind is _From.ERROR:
            request.take(request.stderr, said)
        else:
            request.answer.set_result((kind, said))

    def _lose_all(self) -> None:
        """Another executor has taken the place of one that ended."""
        for request in self._requests.values():
            if not request.answer.done():
                request.answer.set_exception(
                    GuestSilent(f"{self.node}: the guest's executor ended while a command ran")
                )


class ExecutorChannel:
    """The channel of a machine that has an executor."""

    def __init__(self, executor: Executor) -> None:
        self.executor = executor

    @property
    def overdue(self) -> Callable[[], None] | None:
        """See Channel."""
        return self.executor.overdue

    @overdue.setter
    def overdue(self, call: Callable[[], None] | None) -> None:
        self.executor.overdue = call

    def run(self, command: str, *, timeout: float, stdin: bytes | None) -> Completed:
        """Run a shell command; see Machine.execute."""
        return loop.call(self.executor.run(command, timeout=timeout, stdin=stdin)).decoded()

    def read(self, path: str, *, timeout: float) -> bytes:
        """The content of a guest's file."""
        return loop.call(self.executor.read(path, timeout=timeout))

    def write(self, path: str, data: bytes, *, mode: int | None, timeout: float) -> None:
        """Make a guest's file."""
        loop.call(self.executor.write(path, data, mode=mode, timeout=timeout))

    def configure(self, lines: str, *, timeout: float) -> str:
        """Make the guest a node of a network; see Channel."""
        return loop.call(self.executor.configure(lines, timeout=timeout))
