# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: put a file's frames on a wire, see what comes out of another.

    python3 replay.py FILE NAMESPACE DEVICE [NAMESPACE DEVICE SOURCE,...]

Prints how many were sent; with a second end how many packets of IP from a
SOURCE came there, and a digest of their bytes in order.
"""

import hashlib
import socket
import sys
import time
from pathlib import Path

from flow import enter

ETH_P_ALL = 3


def wire(namespace: str, device: str, protocol: int) -> socket.socket:
    enter(namespace)
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    opened.bind((device, protocol))
    return opened


def packed(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def source_of(frame: bytes) -> bytes:
    return {b"\x08\x00": frame[26:30], b"\x86\xdd": frame[22:38]}.get(frame[12:14], b"")


def drain(far: socket.socket, sources: set[bytes], found: list[bytes]) -> None:
    while True:
        try:
            frame = far.recv(65536)
        except BlockingIOError:
            return
        if source_of(frame) in sources:
            found.append(frame[14:])


def main() -> None:
    file, namespace, device, *other = sys.argv[1:]
    content = Path(file).read_bytes()
    found: list[bytes] = []
    if other:
        far = wire(other[0], other[1], ETH_P_ALL)
        far.setblocking(False)
        sources = {packed(source) for source in other[2].split(",")}
    near = wire(namespace, device, 0)
    at = sent = 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 2], "big")
        near.send(content[at + 2 : at + 2 + length])
        at, sent = at + 2 + length, sent + 1
        if other and sent % 16 == 0:
            drain(far, sources, found)
    time.sleep(0.5)
    print(sent)
    if other:
        drain(far, sources, found)
        print(len(found), hashlib.sha256(b"".join(found)).hexdigest())


if __name__ == "__main__":
    main()
