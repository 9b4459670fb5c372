# SPDX-License-Identifier: GPL-2.0-only
"""A person's terminal on a machine, as far as no machine is needed."""

from __future__ import annotations

import errno
import os
import signal
import socket
import sys
import threading
import time
from types import SimpleNamespace
from typing import cast

import pytest

from lab.errors import InfraError
from lab.vm import terminal


class Guest:
    """Takes long for the first thing that it is told, and no time for any other."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.busy = threading.Event()
        self.free = threading.Event()

    def execute(self, command: str, *, timeout: float) -> None:
        if not self.busy.is_set():
            self.busy.set()
            assert self.free.wait(timeout)
        self.told.append(command)


def test_of_many_sizes_the_last_is_told_last(monkeypatch: pytest.MonkeyPatch) -> None:
    window = [24, 80]
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(fileno=lambda: 0))
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size(window[::-1]))
    guest = Guest()
    with terminal._sized(guest):
        assert guest.busy.wait(5)
        for rows in range(30, 50):
            window[0] = rows
            os.kill(os.getpid(), signal.SIGWINCH)
            time.sleep(0.001)
        guest.free.set()
        deadline = time.monotonic() + 5
        while len(guest.told) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    sizes = [f"stty -F /dev/hvc0 rows {rows} cols 80" for rows in (24, 49)]
    assert guest.told == sizes


def test_a_machine_that_goes_is_told() -> None:
    """QEMU may end between two keys: what was on its way then resets the connection."""

    class Gone:
        def recv(self, _: int) -> bytes:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")

    with pytest.raises(InfraError, match="the machine is gone"):
        terminal._heard(cast("socket.socket", Gone()))
    here, there = socket.socketpair()
    there.close()
    with here, pytest.raises(InfraError, match="the machine is gone"):
        terminal._heard(here)
