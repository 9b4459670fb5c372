# SPDX-License-Identifier: GPL-2.0-only
"""The seal of an artifact: what was in it when it was whole.

The daily check compares sizes, times and link targets (a stat per file); the
full one hashes everything.  Files that appeared since do no harm.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1

Files = dict[str, list[Any]]
"""Path -> [size, mtime in ns, sha256] of a file, [target] of a link."""


@dataclass(frozen=True)
class Seal:
    """What an artifact was made from and what it consists of."""

    inputs: Mapping[str, Any]
    files: Files

    def torn(self, content: Path, *, full: bool = False) -> str | None:
        """What no longer fits, or None if all does.

        Args:
            content: the artifact's directory.
            full: compare hashes too, not only sizes and times.
        """
        root = os.fspath(content)
        if not content.is_dir():
            return "it is empty"
        for name, expected in self.files.items():
            wrong = _differs(f"{root}/{name}", expected, full=full)
            if wrong:
                return f"{name} {wrong}"
        return None


def read(path: Path) -> Seal | None:
    """A seal from its file; None if it cannot be read."""
    try:
        value = json.loads(path.read_bytes())
        if value["format"] != FORMAT:
            return None
        return Seal(inputs=value["inputs"], files=value["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(path: Path, content: Path, inputs: Mapping[str, Any]) -> None:
    """Seal everything below a directory."""
    found = dict(sorted(_walk(content)))
    # hashlib lets go of the interpreter lock, so threads do help.
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        files = dict(zip(found, pool.map(_describe, found.values()), strict=True))
    value = {"format": FORMAT, "inputs": inputs, "files": files}
    publish(path, json.dumps(value, separators=(",", ":")).encode())


def publish(path: Path, data: bytes) -> None:
    """Write a file whole or not at all, and on the disk before it has its name."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def digest(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def digest_file(path: Path | str) -> str:
    """SHA-256 of a file in hex."""
    with open(path, "rb") as file:  # noqa: PTH123 - also takes the plain strings of a walk
        return hashlib.file_digest(file, "sha256").hexdigest()


def _walk(content: Path) -> Iterator[tuple[str, str]]:
    root = os.fspath(content)
    for directory, folders, files in os.walk(root):
        for name in files + [f for f in folders if Path(directory, f).is_symlink()]:
            path = f"{directory}/{name}"
            yield path[len(root) + 1 :], path


def _describe(path: str) -> list[Any]:
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return [os.readlink(path)]  # noqa: PTH115 - thousands of them
    if not stat.S_ISREG(found.st_mode):
        return [""]  # a socket or device: that it is there is all there is to say
    return [found.st_size, found.st_mtime_ns, digest_file(path)]


def _differs(path: str, expected: list[Any], *, full: bool) -> str | None:
    try:
        found = os.lstat(path)
    except OSError:
        return "is missing"
    if len(expected) == 1:
        links = stat.S_ISLNK(found.st_mode)
        target = os.readlink(path) if links else ""  # noqa: PTH115
        return None if target == expected[0] else "leads elsewhere"
    length, mtime, sha256 = expected
    wrong = None
    if found.st_size != length:
        wrong = f"has {found.st_size} bytes instead of {length}"
    elif found.st_mtime_ns != mtime:
        wrong = "was changed"
    elif full and digest_file(path) != sha256:
        wrong = "has other content"
    return wrong
