# SPDX-License-Identifier: GPL-2.0-only
"""One QEMU process: started, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, cast

from qemu.qmp import ConnectError, QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from lab.errors import HostError, InfraError, LabError
from lab.vm import loop
from lab.vm.argv import Places
from lab.vm.errors import ConsoleFlooded, GuestPanicked, MachineDied
from lab.vm.runtime import runtime

# It logs each hang-up, which here is how every machine ends.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

#: Seconds until QEMU has opened its monitor; it takes 0.05 on an idle host.
MONITOR_TIMEOUT = 30.0

#: Seconds that QEMU may take for one command: a dump of memory to a slow disk.
MONITOR_PATIENCE = 600.0

#: Seconds in which QEMU takes what it is told last.
HANG_UP = 5.0

#: Seconds that a panicked kernel has to print its trace before it is given up.
LAST_WORDS = 0.5

#: Bytes of console after which a machine is ended. A debug kernel's boot and
#: a hundred splats are under one MiB.
CONSOLE_LIMIT = 32 * 1024 * 1024

#: What QEMU says on every start and means nothing for us.
_NOISE = re.compile(r"hub \d+ (is not connected to host network|with no nics)")


#: QEMU's words, and those of the library that it takes small pieces from, which
#: aborts it.
_NO_MEMORY = (os.strerror(errno.ENOMEM), "failed to allocate")


class Qemu:
    """A QEMU process and its monitor.

    `doom` is done with the reason once the machine is lost: QEMU ended, the
    guest panicked, the console overflowed.  Whoever waits for the guest waits
    for `doom` too.
    """

    def __init__(self, *, node: str, argv: list[str], places: Places) -> None:
        self.node = node
        self.argv = argv
        self.places = places
        self.expected = False
        #: Whether `stop` has done all that may not be left undone.
        self.stopped = False
        #: What the kernel wrote before a clone was made.
        self.history = ""
        self._shutdown_reason: str | None = None
        self._client = QMPClient(node)
        self._process: subprocess.Popen[bytes] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        #: What else hangs on the machine and is let go with it.
        self.closers: list[Callable[[], Coroutine[Any, Any, None]]] = []
        self.doom: asyncio.Future[LabError] = loop.future()

    # The machine's life

    async def start(self) -> None:
        """Start the process and reach its monitor.

        Raises:
            HostError: the host refused it memory.
            MachineDied: it ended at once; with what it said.
        """
        self.places.directory.mkdir(parents=True, exist_ok=True)
        (self.places.directory / "argv").write_text(shlex.join(self.argv) + "\n")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the lab, which then ends its machines in order.
                start_new_session=True,
            )
        runtime().reaper.adopt(self._process.pid)
        self._tasks.append(asyncio.ensure_future(self._watch_process()))
        try:
            await self._connect()
        except BaseException:
            self._process.kill()
            raise
        self._tasks.append(asyncio.ensure_future(self._watch_events()))

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return None if self._process is None else self._process.pid

    def alive(self) -> bool:
        """Whether QEMU runs."""
        return self._process is not None and self._process.poll() is None

    def expect_end(self) -> None:
        """From now on its end is no accident."""
        self.expected = True

    def wait(self, timeout: float) -> bool:
        """Whether it ended by itself within `timeout` seconds."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """End it at once, and write kernel.log. Stopping twice is fine."""
        self.expected = True
        if self._process is None or self.stopped:
            return
        # First: what hangs on it may wait for it.
        self._process.kill()
        try:
            loop.call(self._release())
        finally:
            self._process.wait()
            runtime().reaper.forget(self._process.pid)
            shutil.rmtree(self.places.runtime, ignore_errors=True)
            self.stopped = True
            self.write_kernel_log()

    def detach(self) -> None:
        """Let the machine live on when this process ends."""
        self.expected = True
        loop.call(self._release())
        if self._process is not None:
            runtime().reaper.forget(self._process.pid)

    def write_kernel_log(self) -> None:
        """Give the console's text as kernel.log: a clone's history, then its own."""
        path = self.places.directory / "kernel.log"
        path.write_text(self.history + self.console(), encoding="utf-8")

    def console(self) -> str:
        """The console's text so far."""
        try:
            raw = self.places.console.read_bytes()
        except OSError:
            return ""
        return plain(raw)

    # The monitor

    def monitor(self, command: str, **arguments: object) -> Any:
        """One QMP command, from any thread.

        Raises:
            InfraError: QEMU refused it or is gone.
        """
        return loop.call(self.ask(command, arguments))

    async def ask(self, command: str, arguments: Mapping[str, object] | None = None) -> Any:
        """`monitor`, on the loop."""
        told = self._client.execute(command, dict(arguments or {}))
        try:
            return await asyncio.wait_for(told, MONITOR_PATIENCE)
        except TimeoutError as error:
            raise InfraError(
                f"{self.node}: QEMU did not do {command} within {MONITOR_PATIENCE:g} s"
            ) from error
        except ExecuteError as error:
            raise InfraError(f"{self.node}: QEMU refused {command}: {error}") from error
        except (QMPError, EOFError, OSError) as error:
            if not self.doom.done():
                await asyncio.wait({self.doom}, timeout=2.0)
            if self.doom.done():
                raise self.doom.result() from error
            raise InfraError(f"{self.node}: QEMU's monitor is gone during {command}") from error

    async def _connect(self) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + MONITOR_TIMEOUT
        while True:
            if self.doom.done():
                raise self.doom.result()
            if self.places.monitor.exists():
                try:
                    await self._greet(deadline - clock())
                    return
                except ConnectError as error:
                    # Between bind and listen; or QEMU ended meanwhile.
                    if clock() > deadline:
                        raise InfraError(
                            f"{self.node}: QEMU's monitor does not answer: {error}"
                        ) from error
            elif clock() > deadline:
                raise InfraError(
                    f"{self.node}: QEMU opened no monitor within {MONITOR_TIMEOUT:g} s"
                )
            await asyncio.sleep(0.003)

    async def _greet(self, left: float) -> None:
        """Connect to a monitor that may never say a word: QEMU may be stopped.

        Raises:
            ConnectError: nobody listens yet, or not any more.
            InfraError: it said nothing within `left` seconds.
        """
        greeting = asyncio.ensure_future(self._client.connect(str(self.places.monitor)))
        ends: set[asyncio.Future[Any]] = {greeting, self.doom}
        try:
            await asyncio.wait(ends, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not greeting.done():
                greeting.cancel()
                await asyncio.wait({greeting}, timeout=HANG_UP)
        if self.doom.done():
            raise self.doom.result()
        if greeting.cancelled() or not greeting.done():
            raise InfraError(f"{self.node}: QEMU's monitor said nothing for {MONITOR_TIMEOUT:g} s")
        greeting.result()

    # What becomes of it

    async def _watch_process(self) -> None:
        assert self._process is not None
        turn = 0
        while self._process.poll() is None:
            await asyncio.sleep(0.02 if turn < 50 else 0.1)
            turn += 1
            if turn % 5 == 0:
                self._check_console()
        # The event that says why may still be on its way.
        await asyncio.sleep(0.02)
        if self.expected:
            self._lose(self._stopped())
        self._lose(self._why_it_ended())

    async def _watch_events(self) -> None:
        async for event in self._client.events:
            match event["event"]:
                case "SHUTDOWN":
                    data = cast(dict[str, object], event["data"])
                    self._shutdown_reason = str(data.get("reason"))
                case "GUEST_PANICKED":
                    await asyncio.sleep(LAST_WORDS)
                    self._lose(GuestPanicked(f"{self.node}: {self._panic_line()}"))

    def _check_console(self) -> None:
        with contextlib.suppress(OSError):
            size = self.places.console.stat().st_size
            if size > CONSOLE_LIMIT and self._process is not None:
                self._lose(
                    ConsoleFlooded(
                        f"{self.node}: the guest wrote more than {CONSOLE_LIMIT >> 20} MiB to its "
                        "console and was ended",
                        file=self.places.console,
                    )
                )
                self._process.kill()

    def _lose(self, reason: LabError) -> None:
        if not self.doom.done():
            self.doom.set_result(reason)

    def _stopped(self) -> MachineDied:
        return MachineDied(f"{self.node}: the machine was stopped", reason="stopped")

    def _why_it_ended(self) -> LabError:
        said = self.complaint()
        if any(words in said for words in _NO_MEMORY):
            return HostError(
                f"{self.node}: the host has no memory for it: {said}",
                right="free some, raise a limit on it (ulimit -v), or run fewer tests at once (-n)",
            )
        return MachineDied(self._obituary(), reason=self._shutdown_reason or "qemu")

    def _obituary(self) -> str:
        assert self._process is not None
        if self._shutdown_reason == "guest-shutdown":
            return f"{self.node}: the guest powered itself off"
        if self._shutdown_reason == "guest-reset":
            return f"{self.node}: the guest reset itself"
        status = self._process.returncode
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        said = self.complaint()
        return f"{self.node}: QEMU {how}" + (f": {said}" if said else "")

    def complaint(self) -> str:
        """What QEMU said on its standard error, at most three lines."""
        try:
            text = self._log.read_text(errors="replace")
        except OSError:
            return ""
        lines = [line for line in text.splitlines() if line.strip() and not _NOISE.search(line)]
        return "; ".join(lines[-3:])

    def _panic_line(self) -> str:
        found = re.findall(r"Kernel panic - not syncing: .*", self.console())
        return found[0].strip() if found else "the kernel panicked"

    @property
    def _log(self) -> Path:
        return self.places.directory / "qemu.log"

    async def _release(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._lose(self._stopped())
        for closer in self.closers:
            await closer()
        with contextlib.suppress(QMPError, EOFError, OSError, TimeoutError):
            await asyncio.wait_for(self._client.disconnect(), HANG_UP)


def plain(console: bytes) -> str:
    """A console's text without the carriage returns that serial lines want."""
    return console.decode(errors="replace").replace("\r", "")
