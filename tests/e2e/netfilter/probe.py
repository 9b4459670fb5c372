# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: does a datagram to a port of this machine arrive?

    python3 probe.py PORT

Prints "arrived" or "lost".  Loopback delivers within the send, so a short
wait is long enough; the kernel's own answer is what the socket holds then.
"""

import socket
import sys


def main() -> None:
    port = int(sys.argv[1])
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        receiver.bind(("127.0.0.1", port))
        receiver.settimeout(0.5)
        sender.sendto(b"lab", ("127.0.0.1", port))
        try:
            print("arrived" if receiver.recv(16) == b"lab" else "mangled")
        except TimeoutError:
            print("lost")


main()
