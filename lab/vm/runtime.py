# SPDX-License-Identifier: GPL-2.0-only
"""The lab process's private directory for sockets, and its reaper.

Socket paths are limited to 107 bytes, so they cannot live with a run's
results.  A directory is named after its owner's process id and holds a file
`owner` with the time that the owner started; `sweep` removes the directories
of owners that are dead.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import shutil
import tempfile
import threading
from pathlib import Path

from lab.errors import HostError
from lab.vm import reaper
from lab.vm.reaper import Reaper

#: What the names of kept machines' directories begin with.
KEPT = "up-"

_OWNER = "owner"


def base() -> Path:
    """The user's directory for all labs' sockets; made, private to the user.

    Raises:
        HostError: it cannot be made, or belongs to somebody else.
    """
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and Path(given).is_dir() and os.access(given, os.W_OK):
        path = Path(given) / "lunatik-lab"
    else:
        path = Path(tempfile.gettempdir()) / f"lunatik-lab-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        owner = path.stat().st_uid
    except OSError as error:
        raise HostError(f"no directory for sockets: {error.strerror}", file=path) from error
    if owner != os.getuid():
        raise HostError(
            "the directory for sockets belongs to another user",
            file=path,
            right="remove it or set XDG_RUNTIME_DIR",
        )
    return path


class Runtime:
    """A private directory and a reaper, for as long as this process lives."""

    def __init__(self) -> None:
        sweep()
        self.owner = os.getpid()
        self.path = base() / f"{self.owner}-{secrets.token_hex(3)}"
        self.reaper = Reaper()
        self.reaper.adopt_directory(self.path)
        self.path.mkdir(mode=0o700)
        own(self.path)

    def directory(self) -> Path:
        """A new, empty directory for one machine's sockets."""
        return Path(tempfile.mkdtemp(prefix="m", dir=self.path))

    def close(self) -> None:
        """End what is left and remove the directory."""
        if os.getpid() == self.owner:
            self.reaper.close()
            shutil.rmtree(self.path, ignore_errors=True)


def own(path: Path) -> None:
    """Let a directory go with this process."""
    (path / _OWNER).write_text(f"{os.getpid()} {reaper.start_time(os.getpid())}\n")


def disown(path: Path) -> None:
    """Let a directory of `own` live on: it is a kept machine's."""
    (path / _OWNER).unlink()


_lock = threading.Lock()
_runtime: Runtime | None = None


def runtime() -> Runtime:
    """This process's runtime, made at the first call."""
    global _runtime  # noqa: PLW0603 - one a process is what it is for
    with _lock:
        if _runtime is None or _runtime.owner != os.getpid():
            _runtime = Runtime()
            atexit.register(_runtime.close)
        return _runtime


def sweep() -> list[Path]:
    """Settle the estates of labs that died together with their reapers.

    Returns:
        The directories that were removed.
    """
    removed = []
    for path in base().iterdir():
        if not path.is_dir() or _is_kept(path) or _owned(path):
            continue
        settle(path)
        removed.append(path)
    return removed


def settle(path: Path) -> None:
    """End whoever lives in a directory, and remove it."""
    estate = reaper.Estate()
    estate.directories.add(path)
    estate.settle()


def _is_kept(path: Path) -> bool:
    """Whether it is of `lab up`, whose owner is gone for good; not of one that boots yet."""
    return path.name.startswith(KEPT) and not (path / _OWNER).exists()


def _owned(path: Path) -> bool:
    try:
        pid, _, started = (path / _OWNER).read_text().partition(" ")
        return reaper.start_time(int(pid)) == int(started)
    except (OSError, ValueError):
        # Without its file it may be a moment old; its name tells the owner.
        with contextlib.suppress(ValueError):
            return reaper.start_time(int(path.name.partition("-")[0])) is not None
        return False
