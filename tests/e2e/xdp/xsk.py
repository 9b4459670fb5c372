# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: an AF_XDP socket for queue 0 of a device, at key 1 of a pinned XSKMAP.

    python3 xsk.py PATH DEVICE READY STOP

Makes the file READY when it listens, and prints a frame a line, in hex, when
there is a file STOP.  What struct xdp_umem_reg and the others look like stands
in linux/if_xdp.h; everything is copied, as veth wants it.
"""

import ctypes
import mmap
import os
import socket
import struct
import sys
import time
from pathlib import Path

from ring import SYS_BPF, pinned

AF_XDP, SOL_XDP = 44, 283
MMAP_OFFSETS, RX_RING, UMEM_REG, FILL_RING, COMPLETION_RING = 1, 2, 4, 5, 6
PAGE_OF_RX, PAGE_OF_FILL = 0, 0x100000000
XDP_COPY = 1 << 1
BPF_MAP_UPDATE_ELEM = 2
KEY = 1

CHUNK, CHUNKS = 2048, 64
"""Bytes for a frame, and for so many: a power of two."""

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> None:
    if result < 0:
        raise SystemExit(f"{what}: {os.strerror(ctypes.get_errno())}")


def offered(xsk: socket.socket, offset: int, page: int) -> tuple[mmap.mmap, int, int, int]:
    """A ring of the socket: its memory, and where its producer, consumer, entries are."""
    said = xsk.getsockopt(SOL_XDP, MMAP_OFFSETS, 128)
    producer, consumer, entries, _ = struct.unpack_from("=4Q", said, offset)
    ring = mmap.mmap(xsk.fileno(), entries + CHUNKS * 16, offset=page)
    return ring, producer, consumer, entries


def main() -> None:
    path, device, ready, stop = sys.argv[1:]
    xsk = socket.socket(AF_XDP, socket.SOCK_RAW, 0)
    memory = mmap.mmap(-1, CHUNK * CHUNKS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    region = struct.pack("=QQII", address, len(memory), CHUNK, 0)
    xsk.setsockopt(SOL_XDP, UMEM_REG, region)
    for ring in (FILL_RING, COMPLETION_RING, RX_RING):
        xsk.setsockopt(SOL_XDP, ring, CHUNKS)

    fill, producer, _, entries = offered(xsk, 64, PAGE_OF_FILL)
    struct.pack_into(f"={CHUNKS}Q", fill, entries, *range(0, len(memory), CHUNK))
    struct.pack_into("=I", fill, producer, CHUNKS)
    where = struct.pack("=HHIII", AF_XDP, XDP_COPY, socket.if_nametoindex(device), 0, 0)
    check(libc.bind(xsk.fileno(), where, len(where)), "bind")

    key, value = (ctypes.c_uint32(number) for number in (KEY, xsk.fileno()))
    update = struct.pack(
        "=IIQQQ", pinned(path), 0, ctypes.addressof(key), ctypes.addressof(value), 0
    )
    check(libc.syscall(SYS_BPF, BPF_MAP_UPDATE_ELEM, update, len(update)), "update")

    Path(ready).touch()
    while not Path(stop).exists():
        time.sleep(0.05)
    received, producer, _, entries = offered(xsk, 0, PAGE_OF_RX)
    (count,) = struct.unpack_from("=I", received, producer)
    for number in range(count):
        at, length, _ = struct.unpack_from("=QII", received, entries + 16 * number)
        print(memory[at : at + length].hex())


main()
