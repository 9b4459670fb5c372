# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: put a file's frames on a wire, see what comes out of another.

    python3 wires.py FRAMES NAMESPACE DEVICE [NAMESPACE DEVICE CAPTURED]

Each frame of the files stands behind its length, two bytes.  Captured are
frames that are marked as the lab's, by the source address of the link (which
a router replaces) or by an IPv4 source in 192.0.2.0/24.  Prints how many were
sent and how many captured.
"""

import ctypes
import os
import socket
import sys
import time
from pathlib import Path

CLONE_NEWNET = 0x40000000
ALL = 0x0003
SO_RCVBUFFORCE = 33
MARK = b"\x02\x00\x00\x00\x00\x99"


def wire(namespace: str, device: str, protocol: int) -> socket.socket:
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    if ctypes.CDLL(None).setns(descriptor, CLONE_NEWNET) != 0:
        raise SystemExit(f"no namespace {namespace}")
    os.close(descriptor)
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(protocol))
    opened.bind((device, protocol))
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 24)
    return opened


def ours(frame: bytes) -> bool:
    return frame[6:12] == MARK or (frame[12:14] == b"\x08\x00" and frame[26:29] == b"\xc0\x00\x02")


def drain(far: socket.socket, captured: bytearray) -> int:
    count = 0
    while True:
        try:
            frame, sender = far.recvfrom(65536)
        except BlockingIOError:
            return count
        if sender[2] != socket.PACKET_OUTGOING and ours(frame):
            captured += len(frame).to_bytes(2, "big") + frame
            count += 1


def main() -> None:
    file, namespace, device, *other = sys.argv[1:]
    content = Path(file).read_bytes()
    captured = bytearray()
    if other:
        far = wire(other[0], other[1], ALL)
        far.setblocking(False)
    near = wire(namespace, device, 0)
    at = sent = got = 0
    while at < len(content):
        length = int.from_bytes(content[at : at + 2], "big")
        near.send(content[at + 2 : at + 2 + length])
        at, sent = at + 2 + length, sent + 1
        if other and sent % 16 == 0:
            got += drain(far, captured)
    time.sleep(0.3)
    if other:
        got += drain(far, captured)
        Path(other[2]).write_bytes(captured)
    print(sent, got)


main()
