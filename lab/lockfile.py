# SPDX-License-Identifier: GPL-2.0-only
"""lab.lock: the exact version and hash of every source.

    version: 1
    kernels:
      "6.12":
        request: {debian: linux-source-6.12, suite: bookworm-security}
        version: 6.12.117-1
        file: linux-source-6.12_6.12.117-1_all.deb
        sha256: 1f...
    lua:
      ...

An entry counts only while its ``request`` is what the manifest asks for.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lab import marked, seal
from lab.errors import UserError

VERSION = 1
HEADER = """\
# SPDX-License-Identifier: GPL-2.0-only
# The exact version and hash of every source.  Written by `lab kernel update`;
# keep it under version control, so that everybody builds the same.
"""
NOT_PLAIN = ("yes", "no", "on", "off", "true", "false", "null", "y", "n")
FIELDS = ("request", "version", "file", "sha256")


@dataclass(frozen=True)
class Locked:
    """One pinned source.

    Attributes:
        request: the source as the manifest names it.
        version: the exact one; for git, the commit.
        file: its file name, where there is one.
        sha256: of that file; None for git, where the commit is the hash.
    """

    request: Mapping[str, str]
    version: str
    file: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Change:
    """What differs between two locks; None is "not there"."""

    group: str
    name: str
    before: Locked | None
    after: Locked | None

    def __str__(self) -> str:
        before = self.before.version if self.before else "nothing"
        after = self.after.version if self.after else "nothing"
        if before == after:
            return f"{self.group} {self.name}: {after}, other content"
        return f"{self.group} {self.name}: {before} -> {after}"


@dataclass(frozen=True)
class Lock:
    """All pinned sources, by group (``kernels``, ``lua``) and name."""

    entries: Mapping[tuple[str, str], Locked] = field(default_factory=lambda: MappingProxyType({}))

    def get(self, group: str, name: str, request: Mapping[str, str]) -> Locked | None:
        """The pin of a source; None if there is none, or it is for another request."""
        found = self.entries.get((group, name))
        return found if found is not None and dict(found.request) == dict(request) else None

    def pinned(self, group: str, name: str, locked: Locked) -> Lock:
        """A lock with one source pinned anew."""
        return replace(self, entries=MappingProxyType({**self.entries, (group, name): locked}))

    def changes(self, after: Lock) -> list[Change]:
        """What another lock has otherwise."""
        return [
            Change(*key, before=self.entries.get(key), after=after.entries.get(key))
            for key in sorted({*self.entries, *after.entries})
            if self.entries.get(key) != after.entries.get(key)
        ]


def read(path: Path) -> Lock:
    """A lock from its file; an empty one if there is no file.

    Raises:
        UserError: at the line of the mistake.
    """
    if not path.exists():
        return Lock()
    raw = marked.load(path)
    if raw.get("version") != VERSION:
        raise UserError(
            f"this lock has version {raw.get('version')}, not {VERSION}",
            file=path,
            line=raw.value_at["version"].line if "version" in raw else 1,
            right="remove it and run `lab kernel update`",
        )
    entries = {}
    for group, names in raw.items():
        if group == "version":
            continue
        for name, entry in _mapping(raw, group).items():
            entries[group, name] = _entry(_mapping(names, name), entry)
    return Lock(MappingProxyType(entries))


def write(path: Path, lock: Lock) -> None:
    """Write a lock, whole or not at all."""
    value: dict[str, Any] = {"version": VERSION}
    for (group, name), locked in sorted(lock.entries.items()):
        entry = {"request": dict(locked.request), "version": locked.version}
        entry |= {"file": locked.file} if locked.file else {}
        entry |= {"sha256": locked.sha256} if locked.sha256 else {}
        value.setdefault(group, {})[name] = entry
    text = HEADER + yaml.dump(
        value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000
    )
    seal.publish(path, text.encode())


def pin(path: Path, group: str, name: str, locked: Locked) -> None:
    """Pin one source in the file; two processes at once lose nothing."""
    with _alone(path):
        before = read(path)
        after = before.pinned(group, name, locked)
        if before.changes(after):
            write(path, after)


def _mapping(raw: marked.MarkedDict, name: str) -> marked.MarkedDict:
    value = raw[name]
    if not isinstance(value, marked.MarkedDict):
        raise raw.key_at[name].error(f"`{name}` must be a mapping")
    return value


def _entry(raw: marked.MarkedDict, value: Mapping[str, Any]) -> Locked:
    for name in value:
        if name not in FIELDS:
            raise raw.key_at[name].error(
                f"the key `{name}` is unknown here", marked.similar(name, FIELDS)
            )
    for name in ("request", "version"):
        if name not in value:
            raise raw.where.error(f"the key `{name}` is missing here")
    request = _mapping(raw, "request")
    for where, texts in ((raw, FIELDS[1:]), (request, tuple(request))):
        for name in texts:
            if not isinstance(where.get(name, ""), str):
                raise where.value_at[name].error(f"`{name}` must be text", "quote it")
    return Locked(
        request=MappingProxyType(dict(request)),
        version=value["version"],
        file=value.get("file"),
        sha256=value.get("sha256"),
    )


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    # The directory itself is locked, so no lock file stays in the checkout.
    handle = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class _Dumper(yaml.SafeDumper):
    """Quotes whatever could be read as anything but text."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    plain = value[:1].isalpha() and value.lower() not in NOT_PLAIN
    return dumper.represent_scalar(marked.TAG + "str", value, style=None if plain else '"')


_Dumper.add_representer(str, _text)
