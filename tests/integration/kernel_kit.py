# SPDX-License-Identifier: GPL-2.0-only
"""A laboratory in a temporary directory: a fake kernel tree, a manifest, a store."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lab import manifest
from lab.kernel.artifact import Kernel
from lab.kernel.build import build_kernel
from lab.kernel.recipe import KernelRecipe, make_recipe
from lab.store import Store

FAKE = Path(__file__).parent.parent / "data" / "fake-kernel"


@dataclass
class Bench:
    """What a test of the builder has in hand."""

    home: Path
    store: Store = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.home / "store")
        self.tree = self.home / "linux"
        shutil.copytree(FAKE, self.tree)
        self.fragment = self.home / "tiny.config"
        self.fragment.write_text("CONFIG_NET=y\nCONFIG_LZ4=y\nCONFIG_XZ=n\n")
        self.manifest = self.home / "lab.local.yaml"
        self.manifest.write_text(
            "flavours:\n"
            "  tiny: {fragments: [./tiny.config]}\n"
            "  other: {fragments: [./tiny.config]}\n"
        )

    def recipe(self, **options: Any) -> KernelRecipe:
        options.setdefault("flavour", "tiny")
        lab = manifest.read(self.manifest)
        return make_recipe(lab, str(self.tree), store=self.store, **options)

    def build(self, **options: Any) -> Kernel:
        return build_kernel(self.recipe(**options), store=self.store)

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.tree / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def compiled(self, kernel: Kernel) -> list[str]:
        """The objects that the build of this artifact compiled."""
        lines = (kernel.path / "build.log").read_text().splitlines()
        return [line.split()[1] for line in lines if line.startswith("  CC ")]


def said(kernel: Kernel) -> dict[str, Any]:
    """build.json."""
    value: dict[str, Any] = json.loads(kernel.build_json.read_text())
    return value
