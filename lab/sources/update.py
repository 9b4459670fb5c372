# SPDX-License-Identifier: GPL-2.0-only
"""Move lab.lock to what the sources are now."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab import lockfile
from lab.lockfile import Change, Locked
from lab.manifest import Manifest
from lab.progress import note
from lab.sources import fetch, lua
from lab.store import Json, Store


def update(names: Sequence[str], *, manifest: Manifest, lock: Path, store: Store) -> list[Change]:
    """Pin kernels to the newest version that their suite, branch or tag has.

    Without names, every kernel of the manifest is moved, and each Lua that has
    no pin yet gets one (its version stands in the manifest itself).

    Returns:
        What has changed; empty if all was newest.

    Raises:
        UserError: there is no such kernel.
        HostError: a suite cannot be read.
        All kernels before the one at fault keep their new pins.
    """
    before = lockfile.read(lock)
    specs = {name: manifest.kernel(name) for name in names or manifest.kernels}
    for name, spec in specs.items():
        locked = fetch.pin(spec, store=store)
        if locked is None:
            if names:
                note(f"kernel {name} needs no lock: its source is fixed in the manifest")
            continue
        lockfile.pin(lock, fetch.GROUP, name, locked)
    if not names:
        for name, entry in manifest.lua.items():
            lua.ensure_pinned(name, entry, lock=lock, store=store)
    return before.changes(lockfile.read(lock))


def as_records(changes: Sequence[Change]) -> list[dict[str, Json]]:
    """Changes for scripts: group, name, and the version and sha256 before and after."""
    return [
        {
            "group": change.group,
            "name": change.name,
            "before": _record(change.before),
            "after": _record(change.after),
        }
        for change in changes
    ]


def _record(locked: Locked | None) -> dict[str, Json] | None:
    return None if locked is None else {"version": locked.version, "sha256": locked.sha256}
