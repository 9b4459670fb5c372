# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's source as Debian's linux-source packages carry it."""

from __future__ import annotations

from pathlib import Path

from lab.errors import HostError, UserError
from lab.lockfile import Locked
from lab.process import run
from lab.sources.apt import Package, Suite, open_suite
from lab.sources.unpack import unpack_tree
from lab.sources.verify import verify_sha256
from lab.store import Json, Store


def newest(*, package: str, suite: str, store: Store) -> Package:
    """The newest version of a package that its suite has.

    Raises:
        UserError: the suite has no such package.
        HostError: the suite cannot be read.
    """
    with open_suite(suite, store) as opened:
        found = opened.packages(package)
    if not found:
        raise UserError(
            f"the Debian suite {suite} has no package {package}",
            right="name a linux-source package and the suite that it is in",
        )
    return found[0]


def inputs(*, package: str, locked: Locked) -> dict[str, Json]:
    """What decides the content of the unpacked tree."""
    return {"debian": package, "version": locked.version, "sha256": locked.sha256}


def unpack(
    into: Path, *, name: str, package: str, suite: str, locked: Locked, store: Store
) -> None:
    """Download the locked version and unpack it into an empty directory.

    Args:
        name: the kernel's, for what the user is told.

    Raises:
        HostError: the suite no longer has the version.
        UserError: the package is not the one that was locked.
    """
    with open_suite(suite, store) as opened:
        deb = opened.download(_find(opened, name=name, package=package, locked=locked))
        try:
            verify_sha256(
                deb,
                wanted=locked.sha256 or "",
                who="lab.lock",
                right=f"`lab kernel update {name}` locks the one that {suite} has now",
            )
        except UserError:
            deb.unlink()
            raise
        _unpack_deb(deb, into, package=package, version=locked.version, store=store)
        # Not earlier: whoever interrupts the unpacking need not fetch it again.
        deb.unlink()


def _find(suite: Suite, *, name: str, package: str, locked: Locked) -> Package:
    versions = suite.packages(package)
    for found in versions:
        if found.version == locked.version:
            return found
    has = ", ".join(found.version for found in versions)
    raise HostError(
        f"the Debian suite {suite.name} no longer has {package} {locked.version}, "
        f"which lab.lock wants for kernel {name}; it has {has or 'none'}",
        right=f"`lab kernel update {name}` moves the lock to the newest",
    )


def _unpack_deb(deb: Path, into: Path, *, package: str, version: str, store: Store) -> None:
    with store.scratch("deb") as scratch:
        run(("dpkg-deb", "--extract", deb, scratch))
        tarballs = sorted((scratch / "usr" / "src").glob(f"{package}.tar*"))
        if len(tarballs) != 1:
            raise UserError(f"the package {package} {version} holds no {package}.tar.xz")
        unpack_tree(tarballs[0], into, label=f"unpack {package} {version}")
