# SPDX-License-Identifier: GPL-2.0-only
"""A kernel of the manifest, made into a source tree."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from lab import lockfile
from lab.errors import UserError
from lab.lockfile import Locked
from lab.manifest import DebianSource, GitSource, KernelSpec, PathSource, TarballSource
from lab.progress import note
from lab.sources import commit, debian, tarball
from lab.sources.tree import SourceId, SourceTree, kernel_version
from lab.sources.worktree import user_tree
from lab.store import Json, Store, key

KIND = "source"
GROUP = "kernels"


@dataclass(frozen=True, kw_only=True)
class _Pinned:
    """A source whose content is decided: what decides it, and how to get it."""

    inputs: Mapping[str, Json]
    unpack: Callable[[Path], None]


def identify(name: str, spec: KernelSpec, *, lock: Path, store: Store) -> SourceId:
    """Which source a kernel has, without fetching it where that can be known.

    Args:
        name: the kernel's, in the manifest.
        lock: lab.lock; a source that is not pinned yet is pinned now.

    Raises:
        UserError, HostError: as ``fetch``.
    """
    if isinstance(spec.source, PathSource):
        return fetch(name, spec, lock=lock, store=store)
    pinned = _pinned(name, spec, lock=lock, store=store)
    source_key = key(pinned.inputs)
    version = store.recall(f"source-{source_key}")
    if isinstance(version, str):
        return SourceId(name=name, version=version, key=source_key)
    return _unpacked(name, pinned, store=store)


def fetch(name: str, spec: KernelSpec, *, lock: Path, store: Store) -> SourceTree:
    """A kernel's source tree, fetched, verified and unpacked if need be.

    Raises:
        UserError: the source does not exist, differs from its hash, is damaged,
            or is no kernel tree.
        HostError: it cannot be fetched, or its suite no longer has the locked version.
    """
    if isinstance(spec.source, PathSource):
        tree = user_tree(spec.source.resolve("path"), store)
        return SourceTree(**{**vars(tree), "name": name})
    return _unpacked(name, _pinned(name, spec, lock=lock, store=store), store=store)


def fetch_path(path: Path, store: Store) -> SourceTree:
    """The user's own tree that ``--kernel PATH`` names.

    Raises:
        UserError: it is no kernel tree.
    """
    return user_tree(path, store)


def pin(spec: KernelSpec, *, store: Store) -> Locked | None:
    """What a source is just now, to be locked; None for what needs no lock.

    A tarball carries its hash in the manifest, and a working tree is as it is.
    """
    source = spec.source
    if isinstance(source, DebianSource):
        try:
            found = debian.newest(package=source.debian, suite=source.suite, store=store)
        except UserError as error:
            raise source.where("debian").error(error.what, error.right) from None
        return Locked(
            request=request(spec), version=found.version, file=found.file, sha256=found.sha256
        )
    if isinstance(source, GitSource):
        version = commit.resolve(
            repository=_repository(source), ref=source.ref, who=str(source.where("ref"))
        )
        return Locked(request=request(spec), version=version)
    return None


def request(spec: KernelSpec) -> dict[str, str]:
    """A source as lab.lock repeats it."""
    return {field: str(value) for field, value in spec.source.model_dump().items()}


def _pinned(name: str, spec: KernelSpec, *, lock: Path, store: Store) -> _Pinned:
    source = spec.source
    if isinstance(source, TarballSource):
        return _pinned_tarball(source, store=store)
    locked = lockfile.read(lock).get(GROUP, name, request(spec))
    if locked is None:
        locked = pin(spec, store=store)
        assert locked is not None
        lockfile.pin(lock, GROUP, name, locked)
        note(f"{lock.name}: kernel {name} is now pinned to {locked.version}")
    if isinstance(source, GitSource):
        return _pinned_commit(source, locked, store=store)
    assert isinstance(source, DebianSource)
    return _pinned_package(name, source, locked, store=store)


def _pinned_package(name: str, source: DebianSource, locked: Locked, *, store: Store) -> _Pinned:
    def unpack(into: Path) -> None:
        debian.unpack(
            into, name=name, package=source.debian, suite=source.suite, locked=locked, store=store
        )

    return _Pinned(inputs=debian.inputs(package=source.debian, locked=locked), unpack=unpack)


def _pinned_commit(source: GitSource, locked: Locked, *, store: Store) -> _Pinned:
    def unpack(into: Path) -> None:
        commit.export(
            into,
            repository=_repository(source),
            ref=source.ref,
            commit=locked.version,
            store=store,
        )

    return _Pinned(inputs=commit.inputs(commit=locked.version), unpack=unpack)


def _pinned_tarball(source: TarballSource, *, store: Store) -> _Pinned:
    remote = tarball.is_url(source.tarball)

    def unpack(into: Path) -> None:
        tarball.unpack(
            into,
            tarball=source.tarball if remote else source.resolve("tarball"),
            sha256=source.sha256,
            who=str(source.where("sha256")),
            store=store,
        )

    return _Pinned(inputs=tarball.inputs(sha256=source.sha256), unpack=unpack)


def _repository(source: GitSource) -> Path | str:
    return source.git if commit.is_remote(source.git) else source.resolve("git")


def _unpacked(name: str, pinned: _Pinned, *, store: Store) -> SourceTree:
    def build(into: Path) -> None:
        pinned.unpack(into)
        try:
            kernel_version(into)
        except UserError as error:
            # The path in the message would be one that is gone by now.
            raise UserError(f"the source of kernel {name} {error.what}") from None

    artifact = store.make(KIND, pinned.inputs, build)
    version = kernel_version(artifact.path)
    if store.recall(f"source-{artifact.key}") != version:
        store.remember(f"source-{artifact.key}", version)
    return SourceTree(name=name, path=artifact.path, version=version, key=artifact.key)
