# SPDX-License-Identifier: GPL-2.0-only
"""Frames that say what is to be done, and who does it: twin.bpf.c and twin.lua."""

from __future__ import annotations

import struct

from twins import HERE, MARK, ROUTER, attach, carry, detach, dump, load, packed, run, send

from lab.testing.bpf import Compiler
from lab.vm.machine import Machine

TYPE = b"\x88\xb5"

# As in twin.bpf.c.
TABLES = (0, 1, 2)
LISTS = (3, 4)
LOOKUP, UPDATE, DELETE = 0, 8, 16
PUSH, POP, PEEK = 24, 32, 40
REDIRECT, RING, PERF, REDIRECT_TO, REDIRECT_HASH, REDIRECT_CPU, REDIRECT_SOCKET = range(48, 55)
HEAD, TAIL, META, CSUM, LOAD, STORE, CSUMS, FIB, BEFORE = range(56, 65)
TIME, CPU, RANDOM, IFINDEX, RX_QUEUE = range(65, 70)

#: Flags by which TAIL and STORE send the frame back afterwards.
BACK = 1

SMALL = 68
"""Bytes of a frame, if nobody wants another size."""

#: What, key, flags, value: the fields of the program's struct order.
Order = tuple[int, int, int, int]


def frame(number: int, order: Order, size: int = SMALL) -> bytes:
    """A frame of so many bytes; what comes after the order differs from byte to byte."""
    what, key, flags, value = order
    head = ROUTER + MARK + TYPE + struct.pack("<IIIIQ", number, what, key, flags, value)
    return head + bytes(at * 7 % 251 for at in range(len(head), size))


class Pair:
    """The program and the script, each with maps of its own, on one wire."""

    def __init__(self, machine: Machine, bpf: Compiler, mode: str) -> None:
        self.machine, self.mode = machine, mode
        program = bpf(HERE / "twin.bpf.c")
        self.of = {who: load(machine, program, f"{who}-{mode}") for who in ("ebpf", "lua")}
        self.script = (HERE / "twin.lua").read_text().replace("MODE", mode)

    def begin(self, who: str) -> None:
        if who == "ebpf":
            attach(self.machine, self.of[who], "twin", mode=self.mode)
        else:
            run(self.machine, self.script.replace("MAPS", self.of[who]))

    def end(self, who: str) -> None:
        if who == "ebpf":
            detach(self.machine, mode=self.mode)
        else:
            self.machine.succeed("lunatik stop filter")

    def outcomes(
        self, orders: list[Order], size: int = SMALL, *, cpu: int = 0
    ) -> dict[str, list[tuple[int, int]]]:
        """What came of each order, (status, value), by whom it was given."""
        self._write_frames(orders, size)
        found = {}
        for who in self.of:
            self.begin(who)
            assert send(self.machine, cpu=cpu) == len(orders)
            self.end(who)
            found[who] = written_down(self.machine, f"{self.of[who]}/t_outcomes", len(orders))
        return found

    def sent_back(
        self, who: str, orders: list[Order], size: int = SMALL
    ) -> tuple[list[tuple[int, int]], list[bytes]]:
        """What came of each order, given by one of the two, and the frames that came back."""
        self._write_frames(orders, size)
        self.begin(who)
        arrived = carry(self.machine, to=("client", "c0"))
        self.end(who)
        outcomes = written_down(self.machine, f"{self.of[who]}/t_outcomes", len(orders))
        return outcomes, arrived

    def _write_frames(self, orders: list[Order], size: int) -> None:
        frames = packed(frame(number, order, size) for number, order in enumerate(orders))
        self.machine.copy_to(frames, "/tmp/frames")


def written_down(machine: Machine, path: str, count: int) -> list[tuple[int, int]]:
    """The first elements of an array of two numbers each, as outcomes are."""
    rows = [bytes(int(byte, 16) for byte in one["value"]) for one in dump(machine, path)]
    return [struct.unpack("<qQ", row) for row in rows[:count]]


def same(orders: list[Order], found: dict[str, list[tuple[int, int]]]) -> None:
    wrong = [
        (number, order, theirs, ours)
        for number, (order, theirs, ours) in enumerate(
            zip(orders, found["ebpf"], found["lua"], strict=True)
        )
        if theirs != ours
    ]
    assert not wrong, wrong[:5]
