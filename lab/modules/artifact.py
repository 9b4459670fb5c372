# SPDX-License-Identifier: GPL-2.0-only
"""External modules built against one exact kernel, and the disk that carries them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ModuleSet:
    """One set of modules in the store.

    Attributes:
        key: content key of kernel, trees and Lua together.
        kernel_key: the kernel that they were built against.
        path: the artifact's directory.
        payload: a read-only erofs image whose tree the guest's init lays over its root.
        files: name of each external module's file -> its sha256.
    """

    key: str
    kernel_key: str
    path: Path
    payload: Path
    files: Mapping[str, str]

    @property
    def symbols(self) -> Path:
        """The same modules with DWARF, for reading addresses."""
        return self.path / "symbols"


def load_modules(*, key: str, path: Path) -> ModuleSet:
    """The record of a published artifact, from its own modules.json."""
    said = json.loads((path / "modules.json").read_text())
    return ModuleSet(
        key=key,
        kernel_key=said["kernel_key"],
        path=path,
        payload=path / "payload.erofs",
        files=dict(said["files"]),
    )
