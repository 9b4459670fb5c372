# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: put a file's frames on a wire, see what comes out of another.

    python3 replay.py FILE NAMESPACE DEVICE [NAMESPACE DEVICE SOURCE]

Prints how many were sent; with a second end how many packets of IPv4 from
SOURCE came there, and a digest of their bytes in order.
"""

import hashlib
import socket
import sys
import time
from pathlib import Path

from flow import enter


def wire(namespace: str, device: str, protocol: int) -> socket.socket:
    enter(namespace)
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    opened.bind((device, protocol))
    return opened


def drain(far: socket.socket, source: bytes, found: list[bytes]) -> None:
    while True:
        try:
            frame = far.recv(65536)
        except BlockingIOError:
            return
        if frame[26:30] == source:
            found.append(frame[14:])


def main() -> None:
    file, namespace, device, *other = sys.argv[1:]
    content = Path(file).read_bytes()
    found: list[bytes] = []
    if other:
        far = wire(other[0], other[1], 0x0800)
        far.setblocking(False)
        source = socket.inet_aton(other[2])
    near = wire(namespace, device, 0)
    at = sent = 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 2], "big")
        near.send(content[at + 2 : at + 2 + length])
        at, sent = at + 2 + length, sent + 1
        if other and sent % 16 == 0:
            drain(far, source, found)
    time.sleep(0.5)
    print(sent)
    if other:
        drain(far, source, found)
        print(len(found), hashlib.sha256(b"".join(found)).hexdigest())


if __name__ == "__main__":
    main()
