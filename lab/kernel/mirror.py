# SPDX-License-Identifier: GPL-2.0-only
"""The hot source tree: a copy that patches may change, of which only what differs is written.

make rebuilds what is newer than its object.  So a file whose content stays
keeps its time, and a file whose content changes, even back to an older one,
gets a new time.  The index says how each file looked when it was written;
whatever looks otherwise (an interrupted run, a stray editor) is put right.

No file is ever written in place: those of a source in the store are hard
links to it.
"""

from __future__ import annotations

import errno
import filecmp
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import seal
from lab.errors import UserError
from lab.progress import Step, progress
from lab.sources.tree import SourceTree
from lab.sources.worktree import content_of
from lab.store import remove_tree

PATCHED = "patched"
TEMPORARY = ".lab-new"
MANY = 1000
"""Files from which on placing them takes long enough to show progress."""

Look = list[int]
"""Size, time and inode of a file in the hot tree: equal means untouched since."""


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What a synchronisation did.

    Attributes:
        generation: changes whenever file times of this tree stop being
            comparable with objects built from it before.
        written: paths that were written or removed.
    """

    generation: str
    written: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class _Index:
    """What the tree was when it was last whole."""

    generation: str
    source: str
    touched: tuple[str, ...]
    files: Mapping[str, tuple[str, Look]]
    """Path -> where its content is from, and how it looked."""


def synchronise(home: Path, source: SourceTree, *, staged: Path, touched: set[str]) -> Synced:
    """Make ``home/tree`` the source tree with the staged files in place of the touched ones.

    Args:
        home: ours alone for the time being.
        staged: holds the touched files that the patched tree has.

    Raises:
        UserError: the user's tree changed while it was read.
    """
    tree = home / "tree"
    tree.mkdir(exist_ok=True)
    index = _read(home / "index.json")
    base = _base(source, index)
    wanted = {name: origin for name, origin in base.items() if name not in touched}
    wanted |= {name: PATCHED for name in touched if os.path.lexists(staged / name)}
    looks = dict(_looks(tree))
    written = _remove(tree, [name for name in looks if name not in wanted])
    todo = [
        name
        for name, origin in wanted.items()
        if origin == PATCHED
        or name not in looks
        or index is None
        or index.files.get(name) != (origin, looks[name])
    ]
    written += _place(todo, wanted, tree, source, staged=staged, fresh=index is None)
    looks.update(_look_at(tree, todo))
    now = _Index(
        generation=secrets.token_hex(8) if index is None else index.generation,
        source=source.key,
        touched=tuple(sorted(touched)),
        files={name: (origin, looks[name]) for name, origin in wanted.items()},
    )
    if now != index:
        seal.publish(home / "index.json", json.dumps(vars(now), separators=(",", ":")).encode())
    return Synced(generation=now.generation, written=tuple(written))


def _base(source: SourceTree, index: _Index | None) -> dict[str, str]:
    """Every file of the unpatched tree, and what its content is known by.

    The user's tree is known file by file; one in the store never changes, so
    its key stands for each of its files and need not be listed again.
    """
    if source.files is not None:
        return dict(source.files)
    if index is None or index.source != source.key:
        return {name: source.key for name, _ in _files(source.path)}
    kept = {name: source.key for name, (origin, _) in index.files.items() if origin != PATCHED}
    for name in index.touched:
        path = source.path / name
        if path.is_symlink() or path.is_file():
            kept[name] = source.key
    return kept


def _place(
    todo: list[str],
    wanted: Mapping[str, str],
    tree: Path,
    source: SourceTree,
    *,
    staged: Path,
    fresh: bool,
) -> list[str]:
    """Put files in their places; those that were not there already."""
    if len(todo) < MANY:
        placer = _Placer(tree, source, staged=staged, fresh=fresh)
        return [name for name in todo if placer.place(name, wanted[name])]
    with progress(f"lay out the source of {source.name}", total=len(todo)) as step:
        placer = _Placer(tree, source, staged=staged, fresh=fresh, step=step)
        return [name for name in todo if placer.place(name, wanted[name])]


class _Placer:
    """Puts files into the tree, each whole or not at all."""

    def __init__(
        self,
        tree: Path,
        source: SourceTree,
        *,
        staged: Path,
        fresh: bool,
        step: Step | None = None,
    ) -> None:
        self.tree = tree
        self.source = source
        self.staged = staged
        self.fresh = fresh
        self.step = step
        self.made: set[Path] = set()

    def place(self, name: str, origin: str) -> bool:
        """Put one file in its place; False if it stood there already."""
        source = (self.staged if origin == PATCHED else self.source.path) / name
        target = self.tree / name
        if self.step is not None:
            self.step.advance()
        link = self.fresh and not self.source.user and origin != PATCHED
        if link and self._link_new(source, target):
            return True
        if _same(source, target):
            return False
        if target.is_dir() and not target.is_symlink():
            remove_tree(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(target.name + TEMPORARY)
        new.unlink(missing_ok=True)
        if not (link and _link(source, new)):
            try:
                _copy(source, new)
            except FileNotFoundError:
                raise self._changed(name) from None
            if self.source.user and origin != PATCHED and content_of(new) != origin:
                new.unlink()
                raise self._changed(name)
        new.replace(target)
        return True

    def _link_new(self, source: Path, target: Path) -> bool:
        """The quick way for the tens of thousands of files of a new tree."""
        if target.parent not in self.made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.made.add(target.parent)
        try:
            return _link(source, target)
        except FileExistsError:
            return False

    def _changed(self, name: str) -> UserError:
        return UserError(
            f"`{name}` changed while the tree was read", file=self.source.path, right="run it again"
        )


def _same(origin: Path, target: Path) -> bool:
    try:
        old, new = origin.lstat(), target.lstat()
    except OSError:
        return False
    if os.path.samestat(old, new):
        return True
    if stat.S_ISLNK(old.st_mode) or stat.S_ISLNK(new.st_mode):
        both = stat.S_ISLNK(old.st_mode) and stat.S_ISLNK(new.st_mode)
        return both and origin.readlink() == target.readlink()
    if not stat.S_ISREG(new.st_mode) or (old.st_mode ^ new.st_mode) & stat.S_IXUSR:
        return False
    return filecmp.cmp(origin, target, shallow=False)


def _link(origin: Path, target: Path) -> bool:
    try:
        os.link(origin, target, follow_symlinks=False)
    except OSError as error:
        # Another disk, too many links, or the store of another user.
        if error.errno in (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOTSUP):
            return False
        raise
    return True


def _copy(origin: Path, target: Path) -> None:
    shutil.copyfile(origin, target, follow_symlinks=False)
    if not target.is_symlink():
        target.chmod(0o755 if origin.stat().st_mode & stat.S_IXUSR else 0o644)


def _remove(tree: Path, names: list[str]) -> list[str]:
    for name in names:
        path = tree / name
        path.unlink()
        for parent in path.parents:
            if parent == tree:
                break
            try:
                parent.rmdir()
            except OSError:
                break
    return names


def _looks(tree: Path) -> Iterator[tuple[str, Look]]:
    for name, found in _files(tree):
        yield name, [found.st_size, found.st_mtime_ns, found.st_ino]


def _look_at(tree: Path, names: list[str]) -> Iterator[tuple[str, Look]]:
    root = os.fspath(tree)
    for name in names:
        found = os.lstat(f"{root}/{name}")
        yield name, [found.st_size, found.st_mtime_ns, found.st_ino]


def _files(tree: Path) -> Iterator[tuple[str, os.stat_result]]:
    root = os.fspath(tree)
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(f"{root}/{directory}") as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{directory}{entry.name}/")
                else:
                    yield f"{directory}{entry.name}", entry.stat(follow_symlinks=False)


def _read(path: Path) -> _Index | None:
    """The index; None if the tree was never whole, or nobody can tell."""
    try:
        value = json.loads(path.read_bytes())
        return _Index(
            generation=value["generation"],
            source=value["source"],
            touched=tuple(value["touched"]),
            files={name: (entry[0], entry[1]) for name, entry in value["files"].items()},
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
