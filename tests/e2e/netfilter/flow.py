# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: which datagrams from one namespace arrive in another?

    python3 flow.py FROM TO ADDRESS PORT...

FROM and TO are namespaces by name, "-" is that of process 1.  Prints for each
port "arrived", "lost", or "mangled:" and what came instead.
"""

import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000


def enter(namespace: str) -> None:
    """Sockets made from now on live there."""
    path = "/proc/1/ns/net" if namespace == "-" else f"/run/netns/{namespace}"
    descriptor = os.open(path, os.O_RDONLY)
    if ctypes.CDLL(None).setns(descriptor, CLONE_NEWNET) != 0:
        raise SystemExit(f"no namespace {namespace}")
    os.close(descriptor)


def flow(sender: str, receiver: str, address: str, port: int) -> str:
    """Send one datagram; what became of it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    enter(receiver)
    with socket.socket(family, socket.SOCK_DGRAM) as there:
        there.bind((address, port))
        there.settimeout(0.5)
        enter(sender)
        with socket.socket(family, socket.SOCK_DGRAM) as here:
            here.connect((address, port))
            try:
                here.send(b"lab")
                came = there.recv(16)
            except (TimeoutError, PermissionError):
                return "lost"
    return "arrived" if came == b"lab" else f"mangled:{came!r}"


def main() -> None:
    """All ports, one after the other."""
    sender, receiver, address, *ports = sys.argv[1:]
    print(" ".join(flow(sender, receiver, address, int(port)) for port in ports))


if __name__ == "__main__":
    main()
