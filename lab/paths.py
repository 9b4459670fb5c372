# SPDX-License-Identifier: GPL-2.0-only
"""Paths as people type them."""

from __future__ import annotations

from pathlib import Path

from lab.errors import UserError


def expand(path: Path | str) -> Path:
    """A path with the ``~`` or ``~NAME`` at its beginning replaced.

    Raises:
        UserError: nobody of that name has a home here.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        owner = Path(path).parts[0]
        raise UserError(f"`{path}`: nobody knows where {owner} is", right="write it out") from None
