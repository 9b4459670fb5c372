# SPDX-License-Identifier: GPL-2.0-only
"""Bytes are what the lock or the manifest says that they are, or they are refused."""

from __future__ import annotations

from pathlib import Path

from lab import seal
from lab.errors import UserError


def verify_sha256(file: Path, *, wanted: str, who: str, right: str) -> None:
    """Compare a file's hash.

    Args:
        who: who wants it: "lab.lock", "lab.yaml:12".
        right: what to do when it differs.

    Raises:
        UserError: it differs.  The file is left to the caller.
    """
    found = seal.digest_file(file)
    if found != wanted:
        raise UserError(
            f"the sha256 of {file.name} ({file.stat().st_size} bytes) differs: "
            f"{who} wants {wanted}, it is {found}",
            right=right,
        )
