# SPDX-License-Identifier: GPL-2.0-only
"""The guests' root file system and its start.

image  from nothing but the mirror: under 90 s
boot   cold, from the request to a first command's answer: under 3 s
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from lab import manifest
from lab.image.build import build as build_image
from lab.kernel.build import build_kernel
from lab.kernel.recipe import make_recipe
from lab.manifest import ROOT
from lab.provider.qemu import QemuProvider
from lab.store import Store
from lab.vm.spec import MachineSpec

RECIPE = ROOT / "vm-images" / "debian.yaml"


def report(name: str, **figures: float) -> None:
    told = "  ".join(f"{key}={value:.2f}" for key, value in figures.items())
    print(f"\nbench image {name}: {told}", file=sys.stderr)


def test_image_from_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    began = time.monotonic()
    image = build_image("debian", RECIPE, store)
    took = time.monotonic() - began
    report("from-nothing", seconds=took, mb=image.root.stat().st_size / 1e6)
    assert took < 90


def test_boot(tmp_path: Path) -> None:
    lab, store = manifest.read(), Store()
    kernel = build_kernel(make_recipe(lab, lab.default_kernel, store=store), store=store)
    root = build_image("debian", RECIPE, store).root
    provider = QemuProvider()
    took = []
    for number in range(5):
        began = time.monotonic()
        spec = MachineSpec(name="a", kernel=kernel.bzimage, root=root)
        machine = provider.start(spec, tmp_path / str(number))
        assert machine.succeed("echo here") == "here\n"
        took.append(time.monotonic() - began)
        machine.stop()
    report("boot", median=statistics.median(took), best=min(took))
    assert statistics.median(took) < 3
