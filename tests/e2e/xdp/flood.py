# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: SYNs from ever other sources and ports, as fast as it can.

    python3 flood.py DEVICE SECONDS

Prints how many it sent; the device may go away meanwhile.
"""

import itertools
import socket
import struct
import sys
import time

LINK = bytes.fromhex("020000000002 020000000099 0800")
SERVER = b"\xc6\x33\x64\x02"
FRAMES = 4096
"""Made before the first is sent: sending is what takes time then."""


def head(source: bytes) -> bytes:
    """Of IPv4; a router drops one whose checksum is wrong."""
    packed = struct.pack(">BBHIBBH", 0x45, 0, 40, 0, 64, 6, 0) + source + SERVER
    total = sum(struct.unpack(">10H", packed))
    total = (total & 0xFFFF) + (total >> 16)
    return packed[:10] + struct.pack(">H", ~(total + (total >> 16)) & 0xFFFF) + packed[12:]


def frame(number: int) -> bytes:
    source = bytes((192, 0, 2, 3 + number % 250))
    port = 1024 + number * 14 % 60000
    syn = struct.pack(">HHIIHHHH", port, 80, number, 0, 0x5002, 1024, 0, 0)
    return LINK + head(source) + syn


def main() -> None:
    device, seconds = sys.argv[1], float(sys.argv[2])
    frames = [frame(number) for number in range(FRAMES)]
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    wire.bind((device, 0))
    end = time.monotonic() + seconds
    for sent, one in enumerate(itertools.cycle(frames)):
        try:
            wire.send(one)
        except OSError:
            break
        if sent % 256 == 0 and time.monotonic() > end:
            break
    print(sent)


main()
