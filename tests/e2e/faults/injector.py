# SPDX-License-Identifier: GPL-2.0-only
"""Runs on the guest: makes each allocation of a scenario fail in turn.

    python3 injector.py SCENARIO WAY TIMES [FIRST]

WAY is `lunatik`, whose own allocations fail, TIMES of them one after another,
or `slab`: one of all that the kernel makes for this task. The scenario is gone
through with the first one failing, then with the second, until it is over
before any fails. It may fail each time, with an error that says so. Then all
must be as it was. Exit status 0, and what was done in one line; 1 and why.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

PARAMETERS = Path("/sys/module/lunatik/parameters")
REFERENCES = Path("/sys/module/lunatik/refcnt")
FAILSLAB = Path("/sys/kernel/debug/failslab")

#: What an error may say when memory was short.
SAYS_SO = re.compile(r"not enough memory|ENOMEM")
ERRNOS = (errno.ENOMEM, errno.ENODEV, errno.ENOENT, errno.ENOBUFS)

#: Seconds until a packet has gone past a hook.
ARRIVES = 5.0

#: Seconds within which a timer expires that was started for at once.
EXPIRES = 0.02

#: What a device tells notifiers of.
MTU = Path("/sys/class/net/lo/mtu")

#: Seconds that the kernel has to give back what a scenario has left to it.
SETTLED = 10.0

#: More than any scenario has.
ENDLESS = 20_000


class Wrong(Exception):
    """The kernel did what it must not do."""


class Lua:
    """An open /dev/lunatik."""

    def __init__(self) -> None:
        self.file = os.open("/dev/lunatik", os.O_RDWR)

    def run(self, chunk: str) -> str:
        """Run a chunk; its output.

        Raises:
            MemoryError: it failed, and said that memory was short.
        """
        os.write(self.file, chunk.encode())
        output, error = self._read(), self._read()
        if SAYS_SO.search(error):
            raise MemoryError
        if error:
            raise Wrong(f"the error is {error!r}")
        return output

    def _read(self) -> str:
        parts = []
        while part := os.read(self.file, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode()

    def close(self) -> None:
        """Close it, which ends its runtime."""
        os.close(self.file)


def session() -> None:
    """/dev/lunatik is opened, used and closed."""
    lua = Lua()
    try:
        lua.run("local t = {} for i = 1, 20 do t[i] = 'x' .. i end print(table.concat(t)) return 7")
        lua.run("return ('y'):rep(3000)")
    finally:
        lua.close()


def process() -> None:
    """A script is loaded, called through resume() and a device, and stopped."""
    lua.run('victim = require("lunatik").runtime("victim", "process")')
    lua.run('local t = require("rcu").table(8) return victim:resume(t)')
    device = os.open("/dev/victim", os.O_RDWR)
    try:
        if len(os.read(device, 4096)) != 3000:
            raise Wrong("the device gave something else")
        if os.write(device, b"y" * 500) != 500:
            raise Wrong("the device took something else")
    finally:
        os.close(device)
    lua.run("victim:stop()")


def interrupt(context: str) -> None:
    """A script is loaded, resumed with interrupts off, and stopped."""
    lua.run(f'victim = require("lunatik").runtime("irq", "{context}")')
    lua.run('return victim:resume(require("rcu").table(8))')
    lua.run("victim:stop()")


@functools.cache
def wire() -> tuple[socket.socket, socket.socket]:
    """Who sends and who receives: made in peace, as that takes memory as well."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(ARRIVES)
    sender.connect(receiver.getsockname())
    return sender, receiver


def packet() -> None:
    """A packet hook in softirq. Whatever fails in it, it is open: the packet comes."""
    sender, receiver = wire()
    lua.run('victim = require("lunatik").runtime("hook", "softirq")')
    sent = b"%0100d" % time.monotonic_ns()
    sender.send(sent)
    try:
        # One that was sent when all the rest failed may still be there.
        while receiver.recv(len(sent)) != sent:
            pass
    except TimeoutError as error:
        raise Wrong("the hook dropped the packet") from error
    lua.run("victim:stop()")


def rules() -> None:
    """A script offers a match and a target for iptables, and is stopped."""
    lua.run('victim = require("lunatik").runtime("matching", "softirq")')
    lua.run("victim:stop()")


def attached() -> None:
    """A script is on a device, without a BPF program, and is stopped."""
    lua.run('victim = require("lunatik").runtime("attached", "softirq")')
    lua.run("victim:stop()")


def thread() -> None:
    """A script is run by a kernel thread of its own."""
    lua.run('victim = require("lunatik").runtime("threaded")')
    lua.run('threaded = require("thread").run(victim, "threaded")')
    lua.run("threaded:stop() victim:stop()")


def mapped() -> None:
    """A script opens a map that is pinned, uses it with interrupts off, and is stopped."""
    lua.run('victim = require("lunatik").runtime("mapped", "hardirq")')
    lua.run("return victim:resume()")
    lua.run("victim:stop()")


def notified() -> None:
    """A script is told of a device, and is stopped."""
    lua.run('victim = require("lunatik").runtime("notified")')
    mtu = int(MTU.read_text())
    MTU.write_text(str(mtu ^ 1))
    MTU.write_text(str(mtu))
    lua.run("victim:stop()")


def probed() -> None:
    """A script sees a function being called, by whoever may not wait, and is stopped."""
    lua.run('victim = require("lunatik").runtime("probed", "hardirq")')
    os.getpgid(0)
    lua.run("victim:stop()")


def expiring(script: str) -> None:
    """A script is called by a timer meanwhile, and is stopped."""
    lua.run(f'victim = require("lunatik").runtime("{script}", "softirq")')
    time.sleep(EXPIRES)
    lua.run("victim:stop()")


SCENARIOS: dict[str, Callable[[], None]] = {
    "session": session,
    "process": process,
    "softirq": lambda: interrupt("softirq"),
    "hardirq": lambda: interrupt("hardirq"),
    "packet": packet,
    "rules": rules,
    "attached": attached,
    "thread": thread,
    "mapped": mapped,
    "notified": notified,
    "probed": probed,
    "timed": lambda: expiring("timed"),
    "ticking": lambda: expiring("ticking"),
}

CLEANUP = """
if threaded then threaded:stop() end
if victim then victim:stop() end
threaded, victim = nil, nil
collectgarbage() collectgarbage()
"""

RUNNING = """
for _, runtime in ipairs(require("lunatik").status()) do print(runtime.name) end
"""


class LunatikFaults:
    """The module's own allocations."""

    def __init__(self, times: int) -> None:
        self._file = PARAMETERS / "fail_nth"
        (PARAMETERS / "fail_times").write_text(str(times))

    def arm(self, number: int) -> None:
        """The allocation of that number fails."""
        self._file.write_text(str(number))

    def disarm(self) -> bool:
        """No more faults; whether there was one."""
        left = int(self._file.read_text())
        self._file.write_text("0")
        return left <= 0


class SlabFaults:
    """All that the kernel takes from its slabs for this task."""

    def __init__(self) -> None:
        self._file = os.open("/proc/thread-self/fail-nth", os.O_RDWR)
        (FAILSLAB / "ignore-gfp-wait").write_text("N")
        (FAILSLAB / "verbose").write_text("0")

    def arm(self, number: int) -> None:
        """The allocation of that number fails."""
        os.pwrite(self._file, str(number).encode(), 0)

    def disarm(self) -> bool:
        """No more faults; whether there was one."""
        left = int(os.pread(self._file, 32, 0))
        os.pwrite(self._file, b"0", 0)
        return left == 0


def attempt(scenario: Callable[[], None], faults: LunatikFaults | SlabFaults, number: int) -> bool:
    """Go through it once; whether a fault was met."""
    failed = ""
    faults.arm(number)
    try:
        scenario()
    except MemoryError:
        failed = "memory"
    except OSError as error:
        if error.errno not in ERRNOS:
            raise Wrong(f"the system call gave {error}") from error
        failed = str(error.errno)
    finally:
        met = faults.disarm()
    if failed and not met:
        raise Wrong(f"it failed ({failed}) though no allocation did")
    return met


def settle(references: int) -> None:
    """Clean up as a user would; nothing of the scenario may be left.

    Raises:
        Wrong: something is.
    """
    lua.run(CLEANUP)
    deadline = time.monotonic() + SETTLED
    while True:
        names = lua.run(RUNNING).split()
        count = int(REFERENCES.read_text())
        if names == ["lunatik"] and count <= references:
            return
        if time.monotonic() > deadline:
            raise Wrong(f"left: {names}, {count} references instead of {references}")
        time.sleep(0.002)


def main(name: str, way: str, times: int, first: int = 1) -> None:
    """Inject, and say what happened."""
    scenario = SCENARIOS[name]
    # Once in peace: modules get loaded, caches filled.
    scenario()
    settle(1 << 30)
    scenario()
    settle(1 << 30)
    references = int(REFERENCES.read_text())
    faults = LunatikFaults(times) if way == "lunatik" else SlabFaults()
    for number in range(first, ENDLESS):
        if number % 50 == 0:  # for the log of a kernel that dies of it
            Path("/dev/kmsg").write_text(f"<6>{name}: allocation {number}")
        try:
            met = attempt(scenario, faults, number)
            settle(references)
        except Wrong as wrong:
            sys.exit(f"{name}, {way}, allocation {number}: {wrong}")
        if not met:
            print(f"{name} {way} {times}: {number - 1} allocations")
            return
    sys.exit(f"{name} has no end")


lua = Lua()
if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
