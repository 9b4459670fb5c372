# SPDX-License-Identifier: GPL-2.0-only
"""Machines for tests of the machinery itself: any kernel of the store will do."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import pytest

from lab.image.build import Image, build
from lab.kernel.artifact import load_kernel
from lab.manifest import ROOT
from lab.store import Store
from lab.vm.spec import MachineSpec

#: Hosts of these tests are as busy as they like.
PATIENCE = 4


@cache
def store() -> Store:
    """The user's own store: kernel and image come from it."""
    return Store()


@cache
def image() -> Image:
    """The shipped image."""
    return build("debian", ROOT / "vm-images" / "debian.yaml", store())


def kernel() -> Path:
    """A bzImage: $LAB_TEST_KERNEL, else the newest default one in the store."""
    given = os.environ.get("LAB_TEST_KERNEL")
    if given:
        return Path(given)
    homes = sorted(
        (store().root / "artifacts" / "kernel").glob("*"),
        key=lambda home: home.stat().st_mtime,
        reverse=True,
    )
    for home in homes:
        found = store().find("kernel", home.name)
        if found is not None:
            built = load_kernel(key=found.key, path=found.path)
            if built.flavour == "default":
                return built.bzimage
    pytest.skip("no kernel in the store: run `lab kernel build` first, or set LAB_TEST_KERNEL")


def spec(name: str = "a", **changes: object) -> MachineSpec:
    """A plain machine, with changes."""
    values: dict[str, object] = {
        "name": name,
        "kernel": kernel(),
        "root": image().root,
        "patience": PATIENCE,
        **changes,
    }
    return MachineSpec(**values)  # type: ignore[arg-type]
