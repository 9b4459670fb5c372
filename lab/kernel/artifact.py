# SPDX-License-Identifier: GPL-2.0-only
"""A built kernel, as every later room sees it: where its parts lie in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel artifact, complete and published.

    Attributes:
        name: as in the manifest, or the name of the user's tree.
        version: what ``uname -r`` says in a guest.
        flavour: the manifest's name of its configuration.
        key: content key; equal keys mean equal inputs.
        path: the artifact's directory.
    """

    name: str
    version: str
    flavour: str
    key: str
    path: Path

    @property
    def bzimage(self) -> Path:
        """What QEMU boots."""
        return self.path / "bzImage"

    @property
    def vmlinux(self) -> Path:
        """With symbols, DWARF and BTF."""
        return self.path / "vmlinux"

    @property
    def system_map(self) -> Path:
        """Addresses of every symbol, without KASLR."""
        return self.path / "System.map"

    @property
    def config(self) -> Path:
        """The final configuration, as verified."""
        return self.path / "config"

    @property
    def devel(self) -> Path:
        """The tree that external modules are built against: ``make -C devel M=...``."""
        return self.path / "devel"

    @property
    def modules(self) -> Path:
        """The kernel's own modules, as below /lib/modules/<version>, unstripped."""
        return self.path / "modules" / "lib" / "modules" / self.version

    @property
    def build_json(self) -> Path:
        """Every input of the build, and how long each step took (seconds)."""
        return self.path / "build.json"


def load_kernel(*, key: str, path: Path) -> Kernel:
    """The record of a published artifact, from its own build.json."""
    said = json.loads((path / "build.json").read_text())
    return Kernel(
        name=said["name"],
        version=said["release"],
        flavour=said["flavour"],
        key=key,
        path=path,
    )
