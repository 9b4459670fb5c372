# SPDX-License-Identifier: GPL-2.0-only
"""Runs on the guest: several sessions at once start, resume, share and stop.

    python3 stress.py SECONDS

Each process has a /dev/lunatik of its own; what they share lies in
lunatik._ENV, under a few names that they fight for. Two of these, the box and
the queue, are there before the fight and only ever replaced: whoever finds
nothing under them has found a hole. Exit status 0, and how often each did
what; 1 and the error that none of it may raise, or what hardly happened at all.
"""

from __future__ import annotations

import os
import random
import re
import sys
import time
from collections import Counter
from multiprocessing import Process, Queue

SESSIONS = 4
SLOTS = 4

#: How often each chunk has to have done its work, all sessions together, or
#: nobody fought: few, as a busy host under emulation gets through little.
LEAST = 3

#: What whoever loses a race is told.
LOST = re.compile(
    r"attempt to index a nil value|ESHUTDOWN|EDEADLK|EBUSY|ENODEV|EEXIST|EINTR|EAGAIN"
    r"|returned no function|is closed"
)

CHUNKS = {
    "start": 'env[slot] = lunatik.runtime("member", context)',
    "resume": "return env[slot]:resume(env.box, env.queue)",
    "stop": "env[slot]:stop()",
    "forget": "env[slot] = nil",
    "replace": "local r = env[slot] env[slot] = nil r:stop()",
    "share": "env.box, env.queue = rcu.table(16), fifo.new(256)",
    "read": "rcu.map(env.box, function(key, value) local _ = tostring(value) end)",
    "thread": """
        local runtime = lunatik.runtime("worker")
        local worker = thread.run(runtime, "worker")
        linux.schedule(1)
        worker:stop() runtime:stop()""",
    "status": "for _, each in ipairs(lunatik.status()) do local _ = each.name end",
    "collect": "collectgarbage()",
}

HEAD = """
lunatik, rcu, fifo = require("lunatik"), require("rcu"), require("fifo")
thread, linux, env = require("thread"), require("linux"), lunatik._ENV
"""


CLEAN = """
for n = 0, 3 do
    local runtime = env["slot" .. n]
    env["slot" .. n] = nil
    if runtime then runtime:stop() end
end
env.box, env.queue = nil, nil
"""


class Session:
    """An open /dev/lunatik."""

    def __init__(self) -> None:
        self._file = os.open("/dev/lunatik", os.O_RDWR)

    def run(self, chunk: str) -> str:
        """Run a chunk; its error, or nothing."""
        os.write(self._file, chunk.encode())
        self._read()
        return self._read()

    def _read(self) -> str:
        parts = []
        while part := os.read(self._file, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode()


def fight(seed: int, seconds: float, results: Queue[tuple[Counter[str], str]]) -> None:
    """Do this and that for so long."""
    chance = random.Random(seed)
    session = Session()
    done: Counter[str] = Counter()
    wrong = session.run(HEAD)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not wrong:
        name = chance.choice(list(CHUNKS))
        slot = f"slot{chance.randrange(SLOTS)}"
        context = chance.choice(("process", "softirq", "hardirq"))
        message = session.run(f"local slot, context = '{slot}', '{context}' {CHUNKS[name]}")
        done[f"{name} {'lost' if message else 'ok'}"] += 1
        if message and not LOST.search(message):
            wrong = f"{name}: {message}"
    results.put((done, wrong))


def missing(total: Counter[str]) -> list[str]:
    """What has been done too seldom to say anything."""
    counts = {name: total[f"{name} ok"] for name in CHUNKS}
    return [
        f"{name}: done {count} times, wanted {LEAST} at least"
        for name, count in counts.items()
        if count < LEAST
    ]


def errors_of(chunk: str) -> list[str]:
    """Run a chunk in a session of its own."""
    session = Session()
    return [message for message in (session.run(HEAD), session.run(chunk)) if message]


def main(seconds: float) -> None:
    """Let them fight, and clean up."""
    wrong = errors_of(CHUNKS["share"])
    results: Queue[tuple[Counter[str], str]] = Queue()
    sessions = [Process(target=fight, args=(n, seconds, results)) for n in range(SESSIONS)]
    for session in sessions:
        session.start()
    total: Counter[str] = Counter()
    for _ in sessions:
        done, message = results.get()
        total += done
        wrong += [message] if message else []
    for session in sessions:
        session.join()
    wrong += errors_of(CLEAN) + missing(total)
    print(" ".join(f"{name}: {count}," for name, count in sorted(total.items())))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main(float(sys.argv[1]))
