# SPDX-License-Identifier: GPL-2.0-only
"""Ends what a dead lab leaves behind.

The reaper is a small process in a session of its own, so that Ctrl-C and the
end of the terminal pass it by.  The lab holds the only writing end of a pipe
to it and tells it of each process and directory.  When the pipe closes,
whatever closed it, the reaper kills the processes, removes the directories
and ends.  It is run as a script, isolated, with nothing but the standard
library, so that it starts in a few milliseconds and stays small.

Killing the lab and its reaper at once is the stated limit; `sweep` then
cleans up at the next start.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: Seconds that the reaper goes on looking for processes to end.
PERSISTENCE = 4.0

#: PF_KTHREAD of include/linux/sched.h: the kernel's own threads.
KERNEL_THREAD = 0x00200000


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none.

    With it a process id means one process for ever, reused or not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name, in parentheses, may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def kill(pid: int, started: int | None) -> bool:
    """Kill a process if it is still the one meant; whether it was there."""
    if started is None or start_time(pid) != started:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return True


def _processes() -> Iterator[Path]:
    return (entry for entry in Path("/proc").iterdir() if entry.name.isdigit())


def users_of(directory: Path) -> list[int]:
    """Processes that live in a private directory.

    That is QEMUs that name it on their command lines, and whatever was given it
    in its environment, as libvirt's daemons and their domains are.  Finds what
    was started a moment before its lab died, too early to be told.
    """
    name = os.fsencode(directory)
    needle = name + b"/"
    variables = (b"XDG_RUNTIME_DIR=" + name + b"\0", b"HOME=" + name + b"\0")
    found = []
    for entry in _processes():
        if int(entry.name) == os.getpid():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            environment = b"\0" + _environment(entry)
        except OSError:
            continue
        named = needle in line and b"qemu-" in line.split(b"\0")[0]
        if named or any(b"\0" + variable in environment for variable in variables):
            found.append(int(entry.name))
    return found


def _environment(entry: Path) -> bytes:
    """What a process was given; nothing if it is another user's."""
    try:
        return (entry / "environ").read_bytes()
    except PermissionError:
        return b""


def unborn() -> list[int]:
    """Processes in the middle of exec(): who they are is not to be seen yet.

    exec() closes what is to be closed, which tells the parent that it went
    well, before it lays out the new command line.  A parent that is killed
    just then leaves a process that `users_of` cannot know.
    """
    found = []
    for entry in _processes():
        try:
            if (entry / "cmdline").read_bytes():
                continue
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] not in "ZX" and not int(fields[6]) & KERNEL_THREAD:
            found.append(int(entry.name))
    return found


class Estate:
    """What is to be ended and removed once its owner is dead."""

    def __init__(self) -> None:
        self.processes: dict[int, int | None] = {}
        self.directories: set[Path] = set()

    def learn(self, line: bytes) -> None:
        """Take in one message of the lab's."""
        message = json.loads(line)
        if "pid" in message:
            self.processes[message["pid"]] = message["start"]
        elif "forget" in message:
            self.processes.pop(message["forget"], None)
        elif "directory" in message:
            self.directories.add(Path(message["directory"]))
        elif "keep" in message:
            self.directories.discard(Path(message["keep"]))

    def settle(self) -> None:
        """Kill, remove; again until nothing is left or patience is."""
        deadline = time.monotonic() + PERSISTENCE
        while time.monotonic() < deadline:
            alive = [pid for pid, started in self.processes.items() if kill(pid, started)]
            # Looked for first: what is born in between is then found below.
            alive += unborn() if self.directories else []
            for directory in self.directories:
                for pid in users_of(directory):
                    kill(pid, start_time(pid))
                    alive.append(pid)
            for directory in self.directories:
                shutil.rmtree(directory, ignore_errors=True)
            if not alive and not any(path.exists() for path in self.directories):
                return
            time.sleep(0.05)


class Reaper:
    """The lab's side: starts the reaper and tells it things. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
            bufsize=0,
        )

    @property
    def pid(self) -> int:
        """The reaper's process id."""
        return self._process.pid

    def adopt(self, pid: int) -> None:
        """End this process if the lab dies."""
        self._tell({"pid": pid, "start": start_time(pid)})

    def forget(self, pid: int) -> None:
        """The process has ended, or shall outlive the lab."""
        self._tell({"forget": pid})

    def adopt_directory(self, path: Path) -> None:
        """Remove this directory if the lab dies, and end QEMUs that use it."""
        self._tell({"directory": str(path)})

    def keep_directory(self, path: Path) -> None:
        """The directory is gone, or shall outlive the lab."""
        self._tell({"keep": str(path)})

    def close(self) -> None:
        """Have it settle what is left, and end."""
        with self._lock:
            if self._process.stdin is not None and not self._process.stdin.closed:
                with contextlib.suppress(BrokenPipeError):
                    self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=PERSISTENCE + 1)

    def _tell(self, message: dict[str, object]) -> None:
        with self._lock:
            pipe = self._process.stdin
            if pipe is None or pipe.closed:
                return
            # A reaper that somebody killed must not take the lab with it.
            with contextlib.suppress(BrokenPipeError):
                pipe.write(json.dumps(message).encode() + b"\n")


def main() -> None:
    """Listen until the lab is gone, then settle its estate."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    estate = Estate()
    for line in sys.stdin.buffer:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            estate.learn(line)
    estate.settle()


if __name__ == "__main__":
    main()
