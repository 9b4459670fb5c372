# SPDX-License-Identifier: GPL-2.0-only
"""The patched source as a build sees it: opened late, held while it is read."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol


class OpenTree(Protocol):
    """A patched tree while it is ours."""

    @property
    def path(self) -> Path:
        """Where it lies; the same each time."""

    @property
    def generation(self) -> str:
        """An object tree is of use only as long as this stays the same."""


class OpenSource(Protocol):
    """Opens the patched source; only called if there is something to do."""

    def __call__(self) -> AbstractContextManager[OpenTree]: ...
