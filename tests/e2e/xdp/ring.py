# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: what is in a pinned BPF ring buffer, a record a line, in hex.

python3 ring.py PATH SIZE
"""

import ctypes
import mmap
import struct
import sys

SYS_BPF = 321
BPF_OBJ_GET = 7
HEADER = 8
BUSY = 1 << 31
DISCARD = 1 << 30


def pinned(path: str) -> int:
    """A descriptor of the map that is pinned there."""
    name = ctypes.create_string_buffer(path.encode())
    attributes = ctypes.create_string_buffer(struct.pack("=QII", ctypes.addressof(name), 0, 0))
    descriptor = ctypes.CDLL(None).syscall(SYS_BPF, BPF_OBJ_GET, attributes, 16)
    if descriptor < 0:
        raise SystemExit(f"{path} does not open")
    return descriptor


def main() -> None:
    path, size = sys.argv[1], int(sys.argv[2])
    descriptor = pinned(path)
    consumer = mmap.mmap(descriptor, mmap.PAGESIZE)
    producer = mmap.mmap(
        descriptor,
        mmap.PAGESIZE + 2 * size,
        prot=mmap.PROT_READ,
        offset=mmap.PAGESIZE,
    )
    (at,) = struct.unpack_from("=Q", consumer)
    (end,) = struct.unpack_from("=Q", producer)
    while at < end:
        start = mmap.PAGESIZE + at % size
        (length,) = struct.unpack_from("=I", producer, start)
        if length & BUSY:
            break
        bare = length & ~(BUSY | DISCARD)
        if not length & DISCARD:
            print(producer[start + HEADER : start + HEADER + bare].hex())
        at += (bare + HEADER + 7) & ~7
    struct.pack_into("=Q", consumer, 0, at)


if __name__ == "__main__":
    main()
