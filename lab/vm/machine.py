# SPDX-License-Identifier: GPL-2.0-only
"""A running machine, in the words of a test."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from lab.vm.errors import (
    CommandFailed,
    CommandTimeout,
    GuestSilent,
    LineRefused,
    MachineDied,
    OutputCut,
)
from lab.vm.spec import MachineSpec

#: Seconds that a command may take unless its caller says otherwise.
COMMAND_TIMEOUT = 30.0

#: Where the images keep the lab's `configure` (vm-images/guest).
CONFIGURE = "/usr/lib/lab/configure"

#: What whoever wants more of a command than its channel keeps can do.
CUT = "16 MiB of each stream; write it to a file and copy that"

#: Seconds that each attempt of `wait_until_succeeds` has at least.
ATTEMPT = 5.0


@dataclass(frozen=True)
class Completed:
    """How a command ended: 128 + signal number if a signal ended it, as in sh.

    Attributes:
        cut: there was more output than is kept of a stream, 16 MiB.
    """

    status: int
    stdout: str
    stderr: str
    cut: bool = False


@dataclass(frozen=True)
class RawCompleted:
    """A `Completed` whose output is bytes."""

    status: int
    stdout: bytes
    stderr: bytes
    cut: bool = False

    def decoded(self) -> Completed:
        """As text, whatever its bytes."""
        return Completed(
            self.status,
            self.stdout.decode(errors="replace"),
            self.stderr.decode(errors="replace"),
            self.cut,
        )


class Channel(Protocol):
    """Runs commands and moves files, out of the way of the network under test.

    `overdue` is called when a command has had its time, before it is killed:
    what it hangs in can still be seen.
    """

    overdue: Callable[[], None] | None

    def run(self, command: str, *, timeout: float, stdin: bytes | None) -> Completed: ...
    def read(self, path: str, *, timeout: float) -> bytes: ...
    def write(self, path: str, data: bytes, *, mode: int | None, timeout: float) -> None: ...

    def configure(self, lines: str, *, timeout: float) -> str:
        """Make the guest a node of a network, by lines of vm-images/guest/network.c.

        Returns:
            Nothing, or the number of the line that could not be done, counted from 1, and why.
        """
        done = self.run(CONFIGURE, timeout=timeout, stdin=lines.encode())
        return "" if done.status == 0 else done.stderr.strip()


class Body(Protocol):
    """The process or domain behind a machine.

    `expected` says that its end is no accident: somebody asked for it.
    """

    expected: bool

    @property
    def pid(self) -> int | None: ...
    def alive(self) -> bool: ...
    def console(self) -> str:
        """What the kernel has written so far."""
        ...

    def monitor(self, command: str, **arguments: object) -> Any:
        """One QMP command to QEMU."""
        ...

    def expect_end(self) -> None:
        """From now on its end is no accident."""
        ...

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

    def __init__(
        self,
        *,
        spec: MachineSpec,
        directory: Path,
        channel: Channel,
        body: Body,
        cloned: bool = False,
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.directory = directory
        self.channel = channel
        self.body = body
        self.cloned = cloned

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<Machine {self.name}>"

    # Commands

    def execute(
        self, command: str, *, timeout: float = COMMAND_TIMEOUT, input: bytes | str | None = None
    ) -> Completed:
        """Run a command, whatever its status.

        A command that starts something in the background must redirect its
        output, else it ends only with that.

        Raises:
            CommandTimeout: it took longer; all of its process group was killed.
            GuestSilent, MachineDied: the machine is lost.
        """
        data = input.encode() if isinstance(input, str) else input
        return self.channel.run(command, timeout=timeout * self.spec.patience, stdin=data)

    def succeed(self, *commands: str, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run commands that must end with status 0; what they wrote to stdout."""
        __tracebackhide__ = True
        return "".join(self._expect(command, timeout, success=True) for command in commands)

    def fail(self, *commands: str, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run commands that must end with another status; what they wrote to stdout."""
        __tracebackhide__ = True
        return "".join(self._expect(command, timeout, success=False) for command in commands)

    def wait_until_succeeds(self, command: str, *, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a command again and again until its status is 0; its stdout then.

        Raises:
            CommandFailed: it still failed when the time was over (its last end).
        """
        __tracebackhide__ = True
        deadline = time.monotonic() + timeout * self.spec.patience
        pause = 0.02
        while True:
            left = max(deadline - time.monotonic(), ATTEMPT * self.spec.patience)
            done = self.channel.run(command, timeout=left, stdin=None)
            if done.status == 0:
                return done.stdout
            if time.monotonic() >= deadline:
                raise CommandFailed(
                    node=self.name,
                    command=command,
                    status=done.status,
                    stdout=done.stdout,
                    stderr=done.stderr,
                    expected=f"success within {timeout:g} s",
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def wait_for_open_port(self, port: int, *, timeout: float = COMMAND_TIMEOUT) -> None:
        """Wait until somebody listens on a TCP port of the guest."""
        __tracebackhide__ = True
        self.wait_until_succeeds(f"ss -Htln 'sport = :{port}' | grep -q .", timeout=timeout)

    def configure(self, lines: Sequence[str], *, timeout: float = COMMAND_TIMEOUT) -> None:
        """Make the machine a node of a network (see lab.net.network).

        Raises:
            LineRefused: its kernel would not do one of them.
            GuestSilent, MachineDied: the machine is lost.
        """
        said = self.channel.configure("\n".join(lines), timeout=timeout * self.spec.patience)
        if said:
            raise LineRefused(self.name, said)

    # Files

    def copy_to(
        self,
        source: Path | str | bytes,
        target: str,
        *,
        mode: int | None = None,
        timeout: float = COMMAND_TIMEOUT,
    ) -> None:
        """Give the guest a file.

        Args:
            source: a file of the host's (its x bit is kept), or the content
                itself as str or bytes.
            target: where to; its directory must exist.
            mode: permissions, if they matter.
        """
        if isinstance(source, Path):
            data = source.read_bytes()
            if mode is None and source.stat().st_mode & 0o100:
                mode = 0o755
        else:
            data = source.encode() if isinstance(source, str) else source
        self.channel.write(target, data, mode=mode, timeout=timeout * self.spec.patience)

    def copy_from(self, source: str, *, timeout: float = COMMAND_TIMEOUT) -> bytes:
        """The content of a file of the guest's."""
        return self.channel.read(source, timeout=timeout * self.spec.patience)

    # The kernel

    def module(self, name: str) -> None:
        """Load a kernel module and what it needs."""
        __tracebackhide__ = True
        self.succeed(f"modprobe {shlex.quote(name)}")

    def lua(self, script: str, *, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a Lua chunk in the kernel; what it returned, as text.

        Raises:
            CommandFailed: with the Lua error in stderr.
        """
        __tracebackhide__ = True
        done = self.execute("exec lunatik -e -", timeout=timeout, input=script)
        if done.status != 0:
            raise CommandFailed(
                node=self.name,
                command=f"lunatik -e\n{script}",
                status=done.status,
                stdout=done.stdout,
                stderr=done.stderr,
            )
        return done.stdout.removesuffix("\n")

    def crash(self, *, timeout: float = 10.0) -> None:
        """Panic the guest's kernel, and wait until it has.

        Raises:
            CommandTimeout: it is still alive.
        """
        limit = timeout * self.spec.patience
        try:
            self.channel.run("echo c > /proc/sysrq-trigger", timeout=limit, stdin=None)
        except (GuestSilent, MachineDied):
            return
        raise CommandTimeout(node=self.name, command="echo c > /proc/sysrq-trigger", seconds=limit)

    def dump(self, file: Path) -> Path:
        """Write a vmcore of the guest's memory, for drgn or crash; the guest goes on after it.

        The file is as large as the guest's memory. A kernel that hangs or has
        panicked is dumped as well, as long as its QEMU runs.

        Raises:
            InfraError: QEMU could not write it.
        """
        target = file.absolute()
        self.body.monitor("dump-guest-memory", paging=False, protocol=f"file:{target}")
        return target

    def kernel_log(self) -> str:
        """What the kernel has written to its console since the machine started."""
        return self.body.console()

    # Its end

    def shutdown(self, *, timeout: float = 10.0) -> None:
        """Power the guest off in order; end it hard if it does not go."""
        self.body.expect_end()
        with contextlib.suppress(GuestSilent, MachineDied, CommandTimeout):
            self.channel.run("poweroff", timeout=1.0, stdin=None)
        self.body.wait(timeout * self.spec.patience)
        self.stop()

    def stop(self) -> None:
        """End the machine at once; its logs stay."""
        self.body.stop()

    def _expect(self, command: str, timeout: float, *, success: bool) -> str:
        __tracebackhide__ = True
        done = self.execute(command, timeout=timeout)
        if (done.status == 0) is not success:
            raise CommandFailed(
                node=self.name,
                command=command,
                status=done.status,
                stdout=done.stdout,
                stderr=done.stderr,
                expected="success" if success else "failure",
            )
        if done.cut:
            raise OutputCut(f"{self.name}: `{command}` wrote more than is kept of it: {CUT}")
        return done.stdout
