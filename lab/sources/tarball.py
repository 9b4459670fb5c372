# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's source as a tarball: a file, or a URL."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from lab.errors import UserError
from lab.sources.download import download
from lab.sources.unpack import unpack_tree
from lab.sources.verify import verify_sha256
from lab.store import Json, Store

SCHEMES = ("http", "https", "ftp", "file")


def is_url(text: str) -> bool:
    """Whether a tarball is named by URL rather than by path."""
    return "://" in text


def inputs(*, sha256: str) -> dict[str, Json]:
    """What decides the content of the unpacked tree."""
    return {"tarball": sha256}


def unpack(into: Path, *, tarball: Path | str, sha256: str, who: str, store: Store) -> None:
    """Fetch a tarball if need be, verify it, and unpack it into an empty directory.

    Args:
        tarball: a path, or a URL as text.
        who: who wants that sha256: "lab.yaml:12".

    Raises:
        UserError: it is not there, differs, or is truncated.
        HostError: it cannot be fetched.
    """
    if isinstance(tarball, Path):
        if not tarball.is_file():
            raise UserError(f"{who} names a tarball that is not there", file=tarball)
        verify_sha256(tarball, wanted=sha256, who=who, right="see that it is the right file")
        unpack_tree(tarball, into, label=f"unpack {tarball.name}")
        return
    parts = urllib.parse.urlsplit(tarball)
    if parts.scheme not in SCHEMES:
        raise UserError(
            f"{who} names `{tarball}`, and a URL of scheme `{parts.scheme}` cannot be fetched",
            right=f"use one of {', '.join(SCHEMES)}",
        )
    with store.hot("download", sha256[:20]) as directory:
        file = download(tarball, directory / (Path(parts.path).name or "tarball"))
        try:
            verify_sha256(file, wanted=sha256, who=who, right="see that the URL is the right one")
            unpack_tree(file, into, label=f"unpack {file.name}")
        except UserError:
            file.unlink()
            raise
        # Not earlier: whoever interrupts the unpacking need not fetch it again.
        file.unlink()
