# SPDX-License-Identifier: GPL-2.0-only
"""The guest channel: commands and files through qemu-guest-agent.

It goes over a virtio serial port, out of the way of the network under test.
The agent speaks QMP without greeting or negotiation.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, ExecInterruptedError, QMPClient, QMPError, StateError
from qemu.qmp.qmp_client import ExecuteError

from lab.errors import LabError
from lab.vm import loop
from lab.vm.errors import CommandRefused, CommandTimeout, GuestFileError, GuestSilent
from lab.vm.machine import Channel, Completed, RawCompleted

#: Seconds for one answer of the agent's, apart from a command's own time.
SILENCE = 20.0

#: Bytes moved by one request; larger ones gain nothing and block the rest.
CHUNK = 256 * 1024

#: The agent keeps at most 16 MiB of each stream, and base64 adds a third.
READ_LIMIT = 64 * 1024 * 1024

#: Seconds between two questions whether a long command has ended.
LONG = 0.1

#: Where the image keeps the lab's `run` (vm-images/guest).
RUN = "/usr/lib/lab/run"


class AgentChannel(Channel):
    """Speaks to the agent in one guest; any number of requests at once.

    Args:
        node: the machine's name, for messages.
        socket: the agent's socket.
        patience: multiplies SILENCE.
        doom: done with the reason once the machine is known to be lost.
        shared: other processes speak to this agent too: hang up while a long
            command runs, and begin by seeing that nobody else's answer comes.
    """

    def __init__(
        self,
        *,
        node: str,
        socket: Path,
        patience: float,
        doom: asyncio.Future[LabError],
        shared: bool = False,
    ) -> None:
        self.node = node
        self.socket = socket
        self.silence = SILENCE * patience
        self.doom = doom
        self.shared = shared
        #: See Channel.
        self.overdue: Callable[[], None] | None = None
        self._client: QMPClient | None = None
        self._connecting = asyncio.Lock()

    def run(self, command: str, *, timeout: float, stdin: bytes | None = None) -> Completed:
        """Run a shell command; see Machine.execute."""
        return loop.call(self.run_async(command, timeout=timeout, stdin=stdin))

    def run_raw(self, command: str, *, timeout: float, stdin: bytes | None = None) -> RawCompleted:
        """`run`, with the output as the bytes that it was."""
        return loop.call(self._run(command, timeout, stdin))

    def read(self, path: str, *, timeout: float) -> bytes:
        """The content of a guest's file."""
        return loop.call(self._read(path, timeout))

    def write(self, path: str, data: bytes, *, mode: int | None, timeout: float) -> None:
        """Make a guest's file."""
        loop.call(self._write(path, data, mode, timeout))

    async def ping(self, *, timeout: float) -> None:
        """Wait until the agent has answered once.

        Raises:
            GuestSilent: it did not within `timeout` seconds.
        """
        await self._ask("guest-ping", {}, timeout=timeout)

    async def connect(self) -> None:
        """Connect now rather than with the first request."""
        await self._connected()

    async def run_async(
        self, command: str, *, timeout: float, stdin: bytes | None = None
    ) -> Completed:
        """`run`, on the loop."""
        return (await self._run(command, timeout, stdin)).decoded()

    async def _run(self, command: str, timeout: float, stdin: bytes | None) -> RawCompleted:
        request: dict[str, object] = {"path": RUN, "arg": [command], "capture-output": True}
        if stdin is not None:
            request["input-data"] = base64.b64encode(stdin).decode()
        try:
            pid = (await self._ask("guest-exec", request))["pid"]
        except ExecuteError as error:
            raise CommandRefused(f"{self.node}: `{command}` was not started: {error}") from error
        try:
            ended = await self._await_end(pid, timeout)
        except asyncio.CancelledError:
            await asyncio.shield(self._end(pid))
            raise
        if ended is None:
            if self.overdue is not None:
                await asyncio.to_thread(self.overdue)
            ended = await self._end(pid)
            so_far = (ended or RawCompleted(0, b"", b"")).decoded()
            raise CommandTimeout(
                node=self.node,
                command=command,
                seconds=timeout,
                stdout=so_far.stdout,
                stderr=so_far.stderr,
            )
        return ended

    async def _await_end(self, pid: int, timeout: float) -> RawCompleted | None:
        """Poll ever more slowly.

        Each question costs the guest some milliseconds under emulation, so
        asking sooner makes a quick command slower: measured from 1 to 30 ms.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        pause = 0.015
        while True:
            status = await self._ask("guest-exec-status", {"pid": pid})
            if status["exited"]:
                return _completed(status)
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return None
            if self.shared and pause >= LONG:
                await self.close()
            await self._pause(min(pause, left))
            pause = min(pause * 1.2, LONG * 5 if self.shared else LONG)

    async def _end(self, pid: int) -> RawCompleted | None:
        """Kill a command's process group; what it had said, if it ends."""
        # dash's own kill, which takes no `--`.
        await self._ask("guest-exec", {"path": "/bin/sh", "arg": ["-c", f"kill -9 -{pid}"]})
        return await self._await_end(pid, self.silence / 4)

    async def _read(self, path: str, timeout: float) -> bytes:
        handle = await self._open(path, "r", timeout)
        parts = []
        try:
            while True:
                got = await self._ask(
                    "guest-file-read", {"handle": handle, "count": CHUNK}, timeout=timeout
                )
                parts.append(base64.b64decode(got["buf-b64"]))
                if got["eof"]:
                    return b"".join(parts)
        except ExecuteError as error:
            raise GuestFileError(f"{self.node}: {path} cannot be read: {error}") from error
        finally:
            await self._ask("guest-file-close", {"handle": handle}, timeout=timeout)

    async def _write(self, path: str, data: bytes, mode: int | None, timeout: float) -> None:
        handle = await self._open(path, "w", timeout)
        try:
            for start in range(0, len(data), CHUNK):
                chunk = binascii.b2a_base64(data[start : start + CHUNK], newline=False).decode()
                await self._ask(
                    "guest-file-write", {"handle": handle, "buf-b64": chunk}, timeout=timeout
                )
            await self._ask("guest-file-flush", {"handle": handle}, timeout=timeout)
        except ExecuteError as error:
            raise GuestFileError(
                f"{self.node}: {path} cannot be written: {error}",
                right="is the guest's memory full?",
            ) from error
        finally:
            await self._ask("guest-file-close", {"handle": handle}, timeout=timeout)
        if mode is None:
            return
        done = await self.run_async(f"chmod {mode:o} -- {_quoted(path)}", timeout=timeout)
        if done.status != 0:
            raise GuestFileError(f"{self.node}: {path}: {done.stderr.strip()}")

    async def _open(self, path: str, mode: str, timeout: float) -> int:
        try:
            return int(
                await self._ask("guest-file-open", {"path": path, "mode": mode}, timeout=timeout)
            )
        except ExecuteError as error:
            raise GuestFileError(f"{self.node}: {path} cannot be opened: {error}") from error

    async def _pause(self, seconds: float) -> None:
        if self.doom.done():
            raise self.doom.result()
        await asyncio.sleep(seconds)

    async def _ask(
        self, command: str, arguments: dict[str, object], *, timeout: float | None = None
    ) -> Any:
        """One request and its answer, unless the machine is lost meanwhile."""
        if self.doom.done():
            raise self.doom.result()
        work = asyncio.ensure_future(self._exchange(command, arguments))
        limit = self.silence if timeout is None else max(timeout, 0.1)
        try:
            either: set[asyncio.Future[Any]] = {work, self.doom}
            await asyncio.wait(either, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if work.done() and not isinstance(work.exception(), _LOST):
                return work.result()
            # A broken connection comes a moment before the news why it broke.
            if work.done():
                await asyncio.wait({self.doom}, timeout=2.0)
            if self.doom.done():
                raise self.doom.result()
            raise GuestSilent(
                f"{self.node}: the guest agent closed the connection"
                if work.done()
                else f"{self.node}: the guest agent did not answer within {limit:g} s"
            )
        finally:
            work.cancel()

    async def _exchange(self, command: str, arguments: dict[str, object]) -> object:
        client = await self._connected()
        return await client.execute(command, arguments)

    async def _connected(self) -> QMPClient:
        async with self._connecting:
            if self._client is None:
                client = QMPClient(self.node, readbuflen=READ_LIMIT)
                client.await_greeting = client.negotiate = False
                await client.connect(str(self.socket))
                try:
                    if self.shared:
                        await _synchronise(client)
                except BaseException:
                    # Nobody else is served, nor are we again, until it is hung up.
                    await _hang_up(client)
                    raise
                self._client = client
            return self._client

    async def close(self) -> None:
        """Let go of the agent; it serves the next who comes."""
        client, self._client = self._client, None
        if client is not None:
            await _hang_up(client)


async def _hang_up(client: QMPClient) -> None:
    # If it was broken already, those who asked were told.
    with contextlib.suppress(QMPError, OSError, EOFError):
        await client.disconnect()


async def _synchronise(client: QMPClient) -> None:
    """Drop what somebody else asked for before they hung up."""
    token = secrets.randbits(31)
    while await client.execute("guest-sync", {"id": token}) != token:
        pass


_LOST = (ExecInterruptedError, ConnectError, StateError, EOFError, OSError)


def _completed(status: dict[str, Any]) -> RawCompleted:
    code = status.get("exitcode")
    if code is None:
        code = 128 + int(status.get("signal", 0))
    return RawCompleted(
        status=code,
        stdout=base64.b64decode(status.get("out-data", "")),
        stderr=base64.b64decode(status.get("err-data", "")),
        cut=bool(status.get("out-truncated") or status.get("err-truncated")),
    )


def _quoted(path: str) -> str:
    return "'" + path.replace("'", "'\\''") + "'"
