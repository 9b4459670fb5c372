# SPDX-License-Identifier: GPL-2.0-only
"""The stages before the tests: kernel, modules, image, for each kernel and flavour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.image import build as images
from lab.kernel.build import build_kernel
from lab.kernel.recipe import LOCK, make_recipe
from lab.manifest import Manifest
from lab.modules.build import build_modules
from lab.modules.tree import module_trees
from lab.store import Store
from lab.testing.planning import Built


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asked to test."""

    kernels: tuple[str, ...]
    flavours: tuple[str, ...]
    patches: tuple[str, ...] | None = None
    config: Path | None = None
    modules: tuple[Path, ...] = ()
    llvm: bool = False


def select(
    manifest: Manifest, asked: Sequence[str], *, flavour: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Kernels and flavours by name; "all" is every one of the manifest."""
    kernels = tuple(asked) or (manifest.default_kernel,)
    if "all" in kernels:
        kernels = tuple(manifest.kernels)
    flavours = tuple(manifest.flavours) if flavour == "all" else (flavour,)
    for name in flavours:
        manifest.flavour(name)
    for name in kernels:
        if "/" not in name and not Path(name).is_dir():
            manifest.kernel(name)
    return kernels, flavours


def build(manifest: Manifest, wanted: Wanted, store: Store) -> list[Built]:
    """Bring every stage up to date; quick where nothing changed.

    Errors:
        LabError: whatever stage it was that failed.
    """
    trees = module_trees(manifest, wanted.modules, lock=LOCK, store=store)
    # All that can be wrong with what was typed shows before anything is built.
    recipes = [
        make_recipe(
            manifest,
            name,
            store=store,
            flavour=flavour,
            patches=wanted.patches,
            config=wanted.config,
            llvm=wanted.llvm,
        )
        for name in wanted.kernels
        for flavour in wanted.flavours
    ]
    spec = manifest.image(manifest.default_image)
    image = images.build(manifest.default_image, spec.resolve("recipe"), store)
    result = []
    for recipe in recipes:
        kernel = build_kernel(recipe, store=store)
        result.append(
            Built(
                kernel=kernel,
                modules=build_modules(kernel, trees, store) if trees else None,
                image=image,
                flavour=manifest.flavour(recipe.flavour),
            )
        )
    return result
