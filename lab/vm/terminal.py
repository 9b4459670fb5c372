# SPDX-License-Identifier: GPL-2.0-only
"""A person's terminal on a machine's own serial port: `lab shell`."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import sys
import termios
import threading
import tty
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from lab.errors import InfraError, UserError
from lab.vm.errors import CommandTimeout, GuestSilent, MachineDied
from lab.vm.keep import Kept, attach
from lab.vm.machine import Machine

#: Control-], as in telnet.
ESCAPE = b"\x1d"


def shell(kept: Kept) -> None:
    """Join standard input and output with the guest's shell until Control-].

    Raises:
        UserError: standard input is no terminal.
        InfraError: somebody else's shell is on it, or the machine is gone.
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
                    data = line.recv(65536)
                    if not data:
                        raise InfraError("the machine is gone")
                    _write(data)
                    continue
                data = os.read(sys.stdin.fileno(), 4096)
                before, escape, _ = data.partition(ESCAPE)
                line.sendall(before)
                if escape or not data:
                    return


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(sys.stdout.fileno(), data) :]


@contextlib.contextmanager
def _connected(name: str, terminal: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(terminal))
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
    """Tell the guest the window's size, now and whenever it changes."""

    def tell() -> None:
        columns, rows = os.get_terminal_size(sys.stdin.fileno())
        with contextlib.suppress(GuestSilent, MachineDied, CommandTimeout):
            machine.execute(f"stty -F /dev/hvc0 rows {rows} cols {columns}", timeout=5)

    def changed(_number: int, _frame: FrameType | None) -> None:
        threading.Thread(target=tell, daemon=True).start()

    before = signal.signal(signal.SIGWINCH, changed)
    threading.Thread(target=tell, daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
