# SPDX-License-Identifier: GPL-2.0-only
"""Run a host program: in a process group of its own, bounded, interruptible, logged.

Whatever ends the wait (a time limit, Ctrl-C, SIGTERM turned into an exception,
an error in the caller's own callback), the whole group is ended with it.  Where
we are killed, the kernel sends the program SIGTERM; what it has started itself
is its own affair then.
"""

from __future__ import annotations

import errno
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from lab.errors import HostError, InfraError

GRACE = 3.0
"""Seconds that a group has between SIGTERM and SIGKILL."""

LINGER = 1.0
"""Seconds that output is read after the program's end, should a daemon hold the pipe."""

NOT_STARTED = (126, 127)
"""setpriv's exit status where it could not become the program; env has the same."""

TAIL_LINES = 20
"""Lines of output that an error shows."""


@dataclass(frozen=True)
class Finished:
    """A program that has ended.

    Attributes:
        argv: what was run.
        status: exit status; minus the number of the signal that ended it.
        stdout, stderr: all its output, undecodable bytes replaced.
        seconds: how long it ran.
    """

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def command(self) -> str:
        """The argv as a shell would read it."""
        return shlex.join(self.argv)

    def tail(self, lines: int = TAIL_LINES) -> str:
        """The last lines of its output, standard error preferred."""
        text = self.stderr if self.stderr.strip() else self.stdout
        return "\n".join(text.rstrip().splitlines()[-lines:])


class ProgramFailed(InfraError):
    """A program ended with a status that its caller did not accept.

    Rooms that know better whose fault it is catch this and raise their own.
    """

    def __init__(self, finished: Finished) -> None:
        how = (
            f"failed with status {finished.status}"
            if finished.status >= 0
            else f"was ended by {signal_name(-finished.status)}"
        )
        tail = finished.tail()
        super().__init__(f"`{finished.command}` {how}" + (f":\n{tail}" if tail else ""))
        self.finished = finished


class ProgramTimeout(InfraError):
    """A program took longer than it may."""

    def __init__(self, finished: Finished, limit: float) -> None:
        tail = finished.tail()
        super().__init__(
            f"`{finished.command}` did not end within {limit:g} s" + (f":\n{tail}" if tail else "")
        )
        self.finished = finished


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    timeout: float | None = None,
    log: Path | None = None,
    on_line: Callable[[str], None] | None = None,
    input: str | bytes | None = None,
    check: bool = True,
) -> Finished:
    """Run a program to its end.

    Args:
        argv: program and arguments; no shell.
        env: variables on top of the lab's own environment; None takes one away.
        timeout: seconds until the group is ended.
        log: file that the output is appended to, both streams as they come.
        on_line: called with each line of either stream, without its newline.
        input: what the program reads; nothing if left out.
        check: raise if the status is not 0.

    Raises:
        HostError: the program is not installed (names the Debian package), or
            the disk is full.
        ProgramFailed: status other than 0, with ``check``.
        ProgramTimeout: the time limit has passed.
    """
    words = tuple(str(word) for word in argv)
    began = time.monotonic()
    # Opened first: where that fails there is nothing to end.
    with nullcontext() if log is None else log.open("ab", buffering=0) as written:
        held = _HeldSignals()
        try:
            process = _start(words, cwd=cwd, env=env, piped_input=input is not None)
        except BaseException:
            held.release()
            raise
        reader = _Reader(process, log=written, on_line=on_line, data=_as_bytes(input))
        try:
            held.release()
            ended = reader.pump(None if timeout is None else began + timeout)
        finally:
            # Also on the good way: what the program left in its group ends with it.
            end_group(process)
            reader.close()
    finished = Finished(
        argv=words,
        status=process.returncode,
        stdout=reader.text("stdout"),
        stderr=reader.text("stderr"),
        seconds=time.monotonic() - began,
    )
    if not ended:
        assert timeout is not None
        raise ProgramTimeout(finished, timeout)
    if finished.status in NOT_STARTED and finished.stderr.startswith("setpriv: "):
        raise _not_started(finished, _environment(env))
    if check and finished.status != 0:
        if os.strerror(errno.ENOSPC) in finished.stderr:
            raise HostError(
                f"no space left on the disk while `{finished.command}` ran:\n{finished.tail(5)}",
                right="free some, or look at `lab gc`",
            )
        raise ProgramFailed(finished)
    return finished


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and everything in its group: SIGTERM, then SIGKILL after the grace."""
    if process.returncode is not None:
        return
    try:
        if not _has_exited(process):
            _signal_group(process.pid, signal.SIGTERM)
            deadline = time.monotonic() + GRACE
            while not _has_exited(process) and time.monotonic() < deadline:
                time.sleep(0.02)
    finally:  # also on a second Ctrl-C: no more patience
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()


def _has_exited(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended, without reaping it.

    A reaped leader's number may go to somebody else, and killpg would hit them.
    """
    if process.returncode is not None:
        return True
    found = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None


def signal_name(number: int) -> str:
    """``SIGKILL`` for 9; ``signal 40`` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class _HeldSignals:
    """Keeps handlers that raise from running until ``release``.

    One that raised within Popen, after the fork, would leave a child that
    nobody knows.  The child is not touched: exec resets handlers anyhow.
    """

    def __init__(self) -> None:
        self._came: list[int] = []
        self._handlers: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return  # Python runs handlers in the main thread only
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, lambda number, _: self._came.append(number))

    def release(self) -> None:
        """Give the handlers back, and what came meanwhile to them."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        self._handlers.clear()
        for number in self._came:
            signal.raise_signal(number)


def _start(
    argv: tuple[str, ...],
    *,
    cwd: Path | None,
    env: Mapping[str, str | None] | None,
    piped_input: bool,
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            (*_until_we_die(), *argv),
            cwd=cwd,
            env=_environment(env),
            stdin=subprocess.PIPE if piped_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except FileNotFoundError:
        if cwd is not None and not cwd.is_dir():
            raise InfraError(
                f"`{argv[0]}` cannot be run in a directory that is gone", file=cwd
            ) from None
        raise _missing(argv[0], _environment(env)) from None
    except OSError as error:
        raise HostError(f"`{argv[0]}` cannot be started: {error.strerror}") from error


@cache
def _until_we_die() -> tuple[str, ...]:
    """The words before a command that let it end with us; the signal comes when the
    thread that started it is gone, and in ``run`` that one waits.
    """
    setpriv = shutil.which("setpriv")  # by our own PATH, not the program's
    return (setpriv, "--pdeathsig", "TERM", "--") if setpriv else ()


def _environment(env: Mapping[str, str | None] | None) -> dict[str, str]:
    wanted = {**os.environ, **(env or {})}
    environment = {name: value for name, value in wanted.items() if value is not None}
    # An ordinary user's PATH lacks the directories of depmod and mke2fs.
    environment["PATH"] = environment.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return environment


def _not_started(finished: Finished, environment: Mapping[str, str]) -> HostError:
    program = finished.argv[0]
    if finished.status == NOT_STARTED[-1]:
        return _missing(program, environment)
    why = finished.stderr.strip().rpartition(": ")[2]
    return HostError(f"`{program}` cannot be started: {why}")


def _missing(program: str, environment: Mapping[str, str]) -> HostError:
    # doctor itself runs programs, hence not imported at the top.
    from lab.doctor import package_of

    if "/" in program or shutil.which(program, path=environment.get("PATH")):
        # The file is there, so it is its interpreter that is not.
        return HostError(f"`{program}` cannot be run: it or its interpreter is missing")
    package = package_of(program)
    return HostError(
        f"the program `{program}` is not installed",
        right=f"install the Debian package {package}, or let `lab doctor --install` do it"
        if package
        else "install it",
    )


def _as_bytes(data: str | bytes | None) -> bytes:
    if data is None:
        return b""
    return data.encode() if isinstance(data, str) else data


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


class _Reader:
    """Moves bytes between a program and us until it has ended."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        *,
        log: IO[bytes] | None,
        on_line: Callable[[str], None] | None,
        data: bytes,
    ) -> None:
        self.process = process
        self.on_line = on_line
        self.data = memoryview(data)
        self.log = log
        self.chunks: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self.partial: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self.selector = selectors.DefaultSelector()
        assert process.stdout and process.stderr
        self._watch(process.stdout, "stdout")
        self._watch(process.stderr, "stderr")
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self.selector.register(process.stdin, selectors.EVENT_WRITE, "stdin")

    def _watch(self, pipe: IO[bytes], name: str) -> None:
        os.set_blocking(pipe.fileno(), False)
        self.selector.register(pipe, selectors.EVENT_READ, name)

    def pump(self, deadline: float | None) -> bool:
        """Read and write until the program has ended; False if the deadline came first."""
        gone: float | None = None
        while self.selector.get_map():
            now = time.monotonic()
            if gone is None and _has_exited(self.process):
                gone = now
            if gone is not None and now - gone > LINGER:
                return True
            if gone is None and deadline is not None and now >= deadline:
                return False
            # A program can close its output and live on, or die and leave a
            # daemon holding it, so never wait for the pipes alone.
            wait = 0.2 if deadline is None else min(0.2, max(0.0, deadline - now))
            for key, _ in self.selector.select(wait):
                self._move(key.fileobj, key.data)  # type: ignore[arg-type]
        return self._wait(deadline)

    def _wait(self, deadline: float | None) -> bool:
        while not _has_exited(self.process):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.01)
        return True

    def _move(self, pipe: IO[bytes], name: str) -> None:
        if name == "stdin":
            self._write(pipe)
            return
        try:
            chunk = os.read(pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return
        if not chunk:
            self.selector.unregister(pipe)
            self._lines(name, b"", last=True)
            return
        self.chunks[name].append(chunk)
        if self.log is not None:
            self.log.write(chunk)
        self._lines(name, chunk)

    def _write(self, pipe: IO[bytes]) -> None:
        try:
            self.data = self.data[os.write(pipe.fileno(), self.data[: 1 << 16]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self.data = self.data[:0]
        if not self.data:
            self.selector.unregister(pipe)
            pipe.close()

    def _lines(self, name: str, chunk: bytes, *, last: bool = False) -> None:
        if self.on_line is None:
            return
        *whole, rest = (self.partial[name] + chunk).split(b"\n")
        self.partial[name] = rest
        if last and rest:
            whole.append(rest)
        for line in whole:
            self.on_line(line.decode(errors="replace").rstrip("\r"))

    def text(self, name: str) -> str:
        return b"".join(self.chunks[name]).decode(errors="replace")

    def close(self) -> None:
        self.selector.close()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()
