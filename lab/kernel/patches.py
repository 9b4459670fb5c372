# SPDX-License-Identifier: GPL-2.0-only
"""A source tree with its patches applied, kept hot for make."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.kernel.apply import refuse_links, stage, touched
from lab.kernel.mirror import synchronise
from lab.kernel.series import PatchSeries
from lab.progress import note
from lab.seal import digest
from lab.sources.tree import SourceId, SourceTree
from lab.store import Store, key


@dataclass(frozen=True, kw_only=True)
class PatchedTree:
    """A tree that a kernel is built from, ours alone while the block runs.

    Attributes:
        name: the kernel's.
        path: the same for every series on the same source, so that objects
            built from it stay of use.
        version: as its Makefile says, without any local version.
        key: content key of source and patches.
        generation: an out-of-tree build directory may be continued only while
            this stays the same; with another one it has to be emptied.
        written: files that changed since the last time, relative to the path.
    """

    name: str
    path: Path
    version: str
    key: str
    generation: str
    written: tuple[str, ...]


def patched_key(source: SourceId, series: PatchSeries) -> str:
    """The key that ``patched_tree`` will give."""
    return key({"source": source.key, "patches": series.key})


@contextmanager
def patched_tree(source: SourceTree, series: PatchSeries, store: Store) -> Iterator[PatchedTree]:
    """The source with all patches applied; only files that differ are written.

    There is one such tree per source's name (a user's tree: per path); who
    comes while it is in use waits.  It may be interrupted at any point: the
    next use puts right what was left.

    Raises:
        UserError: a patch does not apply, or the user's tree changed meanwhile.
            The tree is then as it was.
    """
    with store.hot("tree", tree_name(source)) as home:
        with store.scratch("patches") as staged:
            refuse_links(series, source.path)
            shifted = stage(
                series, lambda name: _base(source, name), staged, version=source.version
            )
            synced = synchronise(home, source, staged=staged, touched=touched(series))
        if synced.written:
            for hunk in shifted:
                note(str(hunk))
        yield PatchedTree(
            name=source.name,
            path=home / "tree",
            version=source.version,
            key=patched_key(source, series),
            generation=synced.generation,
            written=synced.written,
        )


def tree_name(source: SourceTree) -> str:
    """The name of a source's hot directories; no two sources share one."""
    if not source.user:
        return source.name
    # kbuild refuses paths with blanks and colons, sed scripts in it those with "@".
    plain = re.sub(r"[^A-Za-z0-9._+-]", "-", source.path.name)
    return f"{plain}-{digest(str(source.path).encode())[:8]}"


def _base(source: SourceTree, name: str) -> Path | None:
    path = source.path / name
    if source.files is not None:
        return path if name in source.files else None
    return path if path.is_symlink() or path.is_file() else None
