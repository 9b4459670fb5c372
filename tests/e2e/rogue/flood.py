# SPDX-License-Identifier: GPL-2.0-only
"""Runs on the guest: as many datagrams to itself as it can; how many were sent and came."""

from __future__ import annotations

import contextlib
import socket
import sys
import time

receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
receiver.bind(("127.0.0.1", 9999))
receiver.setblocking(False)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sent = received = 0
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end:
    # A packet that the hook drops is an error of its sender's.
    with contextlib.suppress(PermissionError):
        sender.sendto(b"x", ("127.0.0.1", 9999))
    sent += 1
    with contextlib.suppress(BlockingIOError):
        while receiver.recv(16):
            received += 1
print(sent, received)
