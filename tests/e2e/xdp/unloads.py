# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: what perf is told of BPF programs while a command runs.

    python3 unloads.py COMMAND...

Prints "ksymbol NAME come|gone" and "bpf ID come|gone", a line for each record.
One CPU only.
"""

import ctypes
import mmap
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

PERF_EVENT_OPEN = 298
SOFTWARE, DUMMY = 1, 9
KSYMBOL, BPF_EVENT = 1 << 29, 1 << 30
ATTRIBUTES = 112
RECORD_KSYMBOL, RECORD_BPF_EVENT = 17, 18
KSYMBOL_GONE, BPF_UNLOAD = 1, 2
PAGES, HEAD = 64, 1024


def opened() -> int:
    """An event that counts nothing, and hears of all processes."""
    attributes = bytearray(ATTRIBUTES)
    struct.pack_into("=IIQ", attributes, 0, SOFTWARE, ATTRIBUTES, DUMMY)
    struct.pack_into("=Q", attributes, 40, KSYMBOL | BPF_EVENT)
    raw = (ctypes.c_char * ATTRIBUTES).from_buffer(attributes)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(PERF_EVENT_OPEN, raw, -1, 0, -1, 0)
    if descriptor < 0:
        raise SystemExit(f"perf_event_open: {os.strerror(ctypes.get_errno())}")
    return int(descriptor)


def records(ring: mmap.mmap) -> Iterator[tuple[int, bytes]]:
    (head,) = struct.unpack_from("=Q", ring, HEAD)
    content, at = ring[mmap.PAGESIZE : mmap.PAGESIZE + head], 0
    assert head <= PAGES * mmap.PAGESIZE, "more than it has room for"
    while at < head:
        kind, _, size = struct.unpack_from("=IHH", content, at)
        yield kind, content[at + 8 : at + size]
        at += size


def told(kind: int, body: bytes) -> str | None:
    if kind == RECORD_KSYMBOL:
        _, _, _, flags = struct.unpack_from("=QIHH", body)
        name = body[16:].split(b"\0")[0].decode()
        return f"ksymbol {name or '-'} {'gone' if flags & KSYMBOL_GONE else 'come'}"
    if kind == RECORD_BPF_EVENT:
        what, _, number = struct.unpack_from("=HHI", body)
        return f"bpf {number} {'gone' if what == BPF_UNLOAD else 'come'}"
    return None


def main() -> None:
    ring = mmap.mmap(opened(), (1 + PAGES) * mmap.PAGESIZE)
    subprocess.run(sys.argv[1:], check=True)
    # Programs are let go of by a worker, after a grace period.
    time.sleep(1)
    for kind, body in records(ring):
        if line := told(kind, body):
            print(line)


main()
