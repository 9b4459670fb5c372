# SPDX-License-Identifier: GPL-2.0-only
"""Commands and files of a Vagrant machine: fabric over paramiko, as root.

Never through `vagrant ssh`, which takes two seconds a call.
"""

from __future__ import annotations

import contextlib
import shlex
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fabric  # type: ignore[import-untyped]
import paramiko

from lab.errors import LabError
from lab.vm.errors import CommandTimeout, GuestFileError, GuestSilent
from lab.vm.machine import Channel, Completed
from lab.vm.ssh import as_root

#: Seconds for a connection; it takes 0.6 under emulation on an idle host.
CONNECT_TIMEOUT = 30.0

#: Seconds that the guest has to answer while no command's own time runs.
SILENCE = 20.0

#: Seconds between two looks at a running command.
POLL = 0.01

#: The first line tells whom to kill.  The outer shell turns a signal into 128
#: and its number, as `Completed` has it, and keeps its own opinion of it quiet.
_FRAME = "echo $$; exec 3>&2 2>/dev/null; /bin/sh -c {command} 2>&3 3>&-; exit $?"

#: Gives the reason why a machine is lost, or None while it is not.
Doom = Callable[[], LabError | None]


class SshChannel(Channel):
    """Runs commands as root over one connection, made when it is first needed.

    Args:
        node: the machine's name, for messages.
        port: of the host's loopback.
        key: private key.
        patience: multiplies time limits that are not a command's own.
        doom: see Doom.
    """

    def __init__(self, *, node: str, port: int, key: Path, patience: float, doom: Doom) -> None:
        self.node = node
        self.port = port
        self.key = key
        self.patience = patience
        self.doom = doom
        #: See Channel.
        self.overdue: Callable[[], None] | None = None
        self._lock = threading.Lock()
        self._connection: fabric.Connection | None = None

    def run(self, command: str, *, timeout: float, stdin: bytes | None) -> Completed:
        """Run a shell command; see Machine.execute."""
        session = self._session()
        try:
            session.exec_command(_FRAME.format(command=shlex.quote(command)))
            return self._attend(session, command, timeout, stdin or b"")
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._loss(f"the connection broke: {error}") from error
        finally:
            session.close()

    def read(self, path: str, *, timeout: float) -> bytes:
        """The content of a guest's file."""
        with self._files(path, timeout, "read") as files, files.open(path, "rb") as file:
            file.prefetch()
            return bytes(file.read())

    def write(self, path: str, data: bytes, *, mode: int | None, timeout: float) -> None:
        """Make a guest's file."""
        with self._files(path, timeout, "written") as files:
            with files.open(path, "wb") as file:
                file.set_pipelined(True)
                file.write(data)
            if mode is not None:
                files.chmod(path, stat.S_IMODE(mode))

    def close(self) -> None:
        """Hang up; the next command connects again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _attend(
        self, session: paramiko.Channel, command: str, timeout: float, stdin: bytes
    ) -> Completed:
        out, err, fed = bytearray(), bytearray(), memoryview(stdin)
        deadline = time.monotonic() + timeout
        session.setblocking(0)
        open_input = True
        while True:
            moved = _drain(session, out, err)
            if open_input:
                fed, open_input = _feed(session, fed)
            if session.exit_status_ready() and not moved:
                _drain(session, out, err)
                return _completed(session, out, err)
            reason = self.doom()
            if reason is not None:
                raise reason
            if session.closed and not session.exit_status_ready():
                raise self._loss("the connection broke")
            if time.monotonic() > deadline:
                if self.overdue is not None:
                    self.overdue()
                self._end(out)
                raise CommandTimeout(
                    node=self.node,
                    command=command,
                    seconds=timeout,
                    stdout=_text(out).partition("\n")[2],
                    stderr=_text(err),
                )
            if not moved:
                time.sleep(POLL)

    def _end(self, out: bytearray) -> None:
        """Kill a command's process group.

        Raises:
            GuestSilent: the guest does not even do that.
        """
        group = _text(out).partition("\n")[0].strip()
        if not group.isdigit():
            raise self._loss("no command begins any more")
        session = self._session()
        with contextlib.closing(session):
            session.settimeout(SILENCE / 4 * self.patience)
            try:
                session.exec_command(f"kill -9 -{group}")
                while session.recv(1024):
                    pass
            except (paramiko.SSHException, OSError) as error:
                raise self._loss("a command that was to be killed lives on") from error

    def _session(self) -> paramiko.Channel:
        reason = self.doom()
        if reason is not None:
            raise reason
        try:
            transport = self._connected().transport
            assert transport is not None
            return transport.open_session(timeout=SILENCE * self.patience)  # type: ignore[no-any-return]
        except (paramiko.SSHException, EOFError, OSError) as error:
            self.close()
            raise self._loss(f"no command can be run: {error or type(error).__name__}") from error

    @contextlib.contextmanager
    def _files(self, path: str, timeout: float, done: str) -> Any:
        try:
            with self._connected().client.open_sftp() as files:
                channel = files.get_channel()
                if channel is not None:
                    channel.settimeout(max(timeout, 0.1))
                yield files
        except TimeoutError as error:
            raise self._loss(f"{path} was not {done} within {timeout:g} s") from error
        except OSError as error:
            if self.doom() is not None or not self._alive():
                raise self._loss(f"the connection broke: {error}") from error
            raise GuestFileError(f"{self.node}: {path} cannot be {done}: {error}") from error
        except (paramiko.SSHException, EOFError) as error:
            raise self._loss(f"the connection broke: {error}") from error

    def _alive(self) -> bool:
        connection = self._connection
        return connection is not None and bool(connection.is_connected)

    def _connected(self) -> fabric.Connection:
        with self._lock:
            if self._connection is None or not self._connection.is_connected:
                self._connection = self._connect()
            return self._connection

    def _connect(self) -> fabric.Connection:
        connection = as_root(self.port, self.key, limit=CONNECT_TIMEOUT * self.patience)
        # A box's host key is no secret, so it proves nothing.
        connection.client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
        connection.open()
        return connection

    def _loss(self, what: str) -> LabError:
        """Why the machine is lost, if that is known by now; else that it is silent."""
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            reason = self.doom()
            if reason is not None:
                return reason
            time.sleep(0.05)
        return GuestSilent(f"{self.node}: {what}")


def _drain(session: paramiko.Channel, out: bytearray, err: bytearray) -> bool:
    moved = False
    while session.recv_ready():
        out += session.recv(1 << 16)
        moved = True
    while session.recv_stderr_ready():
        err += session.recv_stderr(1 << 16)
        moved = True
    return moved


def _feed(session: paramiko.Channel, data: memoryview) -> tuple[memoryview, bool]:
    """Send what fits; whether there is more to come."""
    while data and session.send_ready():
        data = data[session.send(data[: 1 << 15].tobytes()) :]
    if data:
        return data, True
    session.shutdown_write()
    return data, False


def _completed(session: paramiko.Channel, out: bytearray, err: bytearray) -> Completed:
    return Completed(
        status=session.recv_exit_status(),
        stdout=_text(out).partition("\n")[2],
        stderr=_text(err),
    )


def _text(data: bytearray) -> str:
    return bytes(data).decode(errors="replace")
