# SPDX-License-Identifier: GPL-2.0-only
"""A person's terminal on a machine's own serial port: `lab shell`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import selectors
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path

from lab.errors import InfraError, UserError
from lab.vm.errors import CommandTimeout, GuestSilent, MachineDied
from lab.vm.keep import Kept, attach
from lab.vm.machine import Machine

#: Control-], as in telnet.
ESCAPE = b"\x1d"


def shell(kept: Kept) -> None:
    """Join standard input and output with the guest's shell until Control-].

    Raises:
        UserError: standard input is no terminal, or somebody else's shell is on the machine's.
        InfraError: the machine is gone.
    """
    if not sys.stdin.isatty():
        raise UserError("lab shell needs a terminal", right=f"lab exec {kept.name} -- COMMAND")
    converse(attach(kept), kept.places.terminal)


def converse(machine: Machine, terminal: Path) -> None:
    """`shell`, for a machine of this process's own and its terminal's socket."""
    with _connected(machine.name, terminal) as line, _raw(), _sized(machine):
        # The first key starts the shell, and makes one that runs show its prompt.
        line.sendall(b"\n")
        _relay(line)


def _relay(line: socket.socket) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(line, selectors.EVENT_READ)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is line:
                    _write(_heard(line))
                    continue
                data = os.read(sys.stdin.fileno(), 4096)
                before, escape, _ = data.partition(ESCAPE)
                try:
                    line.sendall(before)
                except ConnectionError as error:
                    raise InfraError("the machine is gone") from error
                if escape or not data:
                    return


def _heard(line: socket.socket) -> bytes:
    """What the guest says next; how the end of QEMU looks is a matter of moments."""
    try:
        data = line.recv(65536)
    except ConnectionError as error:
        raise InfraError("the machine is gone") from error
    if not data:
        raise InfraError("the machine is gone")
    return data


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


@contextlib.contextmanager
def _connected(name: str, terminal: Path) -> Iterator[socket.socket]:
    with contextlib.ExitStack() as ours:
        try:
            lock = ours.enter_context(terminal.with_suffix(".lock").open("wb"))
            # QEMU serves one at a time, and lets the next wait without a word.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            line = ours.enter_context(socket.socket(socket.AF_UNIX))
            line.connect(str(terminal))
        except BlockingIOError:
            raise UserError(
                f"somebody's shell is on {name} already", right=f"lab ssh {name} opens another"
            ) from None
        except OSError as error:
            raise InfraError(f"{name}: its terminal cannot be reached: {error.strerror}") from error
        yield line


@contextlib.contextmanager
def _raw() -> Iterator[None]:
    """Every key goes to the guest, Control-C too; as it was afterwards."""
    handle = sys.stdin.fileno()
    before = termios.tcgetattr(handle)
    print("Control-] leaves.", file=sys.stderr)
    tty.setraw(handle)
    try:
        yield
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, before)
        print(file=sys.stderr)


@contextlib.contextmanager
def _sized(machine: Machine) -> Iterator[None]:
    """Tell the guest the window's size, now and whenever it changes.

    A window that is drawn changes faster than a guest is told, and what is told
    last must be the last size: so there is one teller.
    """
    # Its put() may be called by a signal's handler in the midst of itself.
    changes: queue.SimpleQueue[bool] = queue.SimpleQueue()
    before = signal.signal(signal.SIGWINCH, lambda *_: changes.put(True))
    changes.put(True)
    threading.Thread(target=_tell, args=(machine, changes), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        changes.put(False)


def _tell(machine: Machine, changes: queue.SimpleQueue[bool]) -> None:
    told = None
    while changes.get():
        size = os.get_terminal_size(sys.stdin.fileno())
        if size == told:
            continue
        with contextlib.suppress(GuestSilent, MachineDied, CommandTimeout):
            machine.execute(f"stty -F /dev/hvc0 rows {size.lines} cols {size.columns}", timeout=5)
            told = size
