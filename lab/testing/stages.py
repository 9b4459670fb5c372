# SPDX-License-Identifier: GPL-2.0-only
"""The stages before the tests: kernel, modules, image, for each kernel and flavour."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePath

from lab.errors import HostError, UserError
from lab.image import build as images
from lab.image.build import Image
from lab.kernel.build import build_kernel, is_built
from lab.kernel.recipe import LOCK, KernelRecipe, is_path, make_recipe
from lab.manifest import Manifest
from lab.modules.build import build_modules
from lab.modules.tree import ModuleTree, module_trees
from lab.paths import expand
from lab.results.record import Untested
from lab.store import Store
from lab.testing.planning import Built, called, plain

USUAL_FLAVOUR = "default"

USUAL_SUITE = "e2e"
"""What is run where neither the user nor the flavour names anything."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the user asked to test.

    Attributes:
        tests: that each flavour runs as far as its suites hold them; none: its suites.
        fragments: of the lab, on top of every flavour.
        modules: trees of the user's own, after those of the manifest.
        manifests_modules: whether the manifest's are wanted.
    """

    kernels: tuple[str, ...]
    flavours: tuple[str, ...]
    tests: tuple[str, ...] = ()
    patches: tuple[str, ...] | None = None
    config: Path | None = None
    fragments: tuple[str, ...] = ()
    modules: tuple[Path, ...] = ()
    manifests_modules: bool = True
    llvm: bool = False


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One kernel in one flavour, before it is built.

    Attributes:
        kernel: as the user typed it.
        tests: what is run on it where the user names no tests.
    """

    kernel: str
    recipe: KernelRecipe
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """As cells are called, without the shard."""
        recipe = self.recipe
        return called(recipe.source.name, recipe.flavour, llvm=recipe.llvm)


def select(
    manifest: Manifest, asked: Sequence[str], *, flavour: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Kernels and flavours by name, each once; "all" is every one of the manifest.

    Errors:
        UserError: there is no such one, or two kernels or two cells have one name.
    """
    words = asked or (manifest.default_kernel,)
    named = ((manifest.kernels if word == "all" else (word,)) for word in words)
    kernels = tuple(dict.fromkeys(name for names in named for name in names))
    flavours = tuple(manifest.flavours) if flavour == "all" else (flavour,)
    for name in flavours:
        manifest.flavour(name)
    for name in kernels:
        if not is_path(name):
            manifest.kernel(name)
    _refuse_namesakes(manifest, kernels, flavours)
    return kernels, flavours


def turn(
    kernels: tuple[str, ...], flavours: tuple[str, ...], number: int, *, usual: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """One kernel in one flavour, another for each number until all had their turn.

    Args:
        usual: the kernel that is tested where nobody names one; in its usual
            flavour it has no turn, unless nothing else was chosen.
    """
    pairs = [(kernel, flavour) for kernel in kernels for flavour in flavours]
    others = [pair for pair in pairs if pair != (usual, USUAL_FLAVOUR)] or pairs
    kernel, flavour = others[number % len(others)]
    return (kernel,), (flavour,)


def _refuse_namesakes(manifest: Manifest, kernels: Sequence[str], flavours: Sequence[str]) -> None:
    # Cells are called after their kernels, and a tree after its directory.
    known: dict[str, str] = {}
    for word in kernels:
        name = _plain(manifest, word)
        if name in known:
            raise UserError(
                f"`{known[name]}` and `{word}` are both called `{name}`",
                right="give one a name of its own in lab.local.yaml, or test one after the other",
            )
        known[name] = word
    cells: dict[str, str] = {}
    for name, flavour in product(known, flavours):
        pair = f"kernel `{name}`, flavour `{flavour}`"
        cell = plain(called(name, flavour, llvm=False))
        if cell in cells:
            raise UserError(
                f"{cells[cell]} and {pair} would both be the cell `{cell}`",
                right="give one of them another name, or test one after the other",
            )
        cells[cell] = pair


def _plain(manifest: Manifest, word: str) -> str:
    return word if word in manifest.kernels else expand(word).resolve().name


def prepare(manifest: Manifest, wanted: Wanted, store: Store) -> list[Stage]:
    """Every stage of a run; all that is wrong with what was typed shows here.

    Errors:
        UserError: no such kernel, flavour, series, file.
        HostError: a source cannot be fetched.
    """
    return [stage for name in wanted.kernels for stage in _stages_of(manifest, wanted, name, store)]


def prepare_each(
    manifest: Manifest, wanted: Wanted, store: Store
) -> tuple[list[Stage], list[Untested]]:
    """As ``prepare``; but a source that cannot be fetched takes no other kernel with it.

    Errors:
        UserError: no such kernel, flavour, series, file.
        HostError: no source can be fetched.
    """
    stages: list[Stage] = []
    untested: list[Untested] = []
    errors: list[HostError] = []
    for name in wanted.kernels:
        try:
            stages += _stages_of(manifest, wanted, name, store)
        except HostError as error:
            errors.append(error)
            untested += [
                Untested.of(called(_plain(manifest, name), flavour, llvm=wanted.llvm), error)
                for flavour in wanted.flavours
            ]
    if not stages:
        raise errors[0]
    return stages, untested


def _stages_of(manifest: Manifest, wanted: Wanted, kernel: str, store: Store) -> list[Stage]:
    return [
        Stage(
            kernel=kernel,
            recipe=make_recipe(
                manifest,
                kernel,
                store=store,
                flavour=flavour,
                patches=wanted.patches,
                config=wanted.config,
                extra=wanted.fragments,
                llvm=wanted.llvm,
            ),
            tests=share_of(manifest, flavour, wanted.tests),
        )
        for flavour in wanted.flavours
    ]


class Workshop:
    """Brings stages up to date; what all of them share is made once."""

    def __init__(self, manifest: Manifest, wanted: Wanted, store: Store) -> None:
        self.manifest = manifest
        self.store = store
        trees = module_trees(manifest, wanted.modules, lock=LOCK, store=store)
        theirs = () if wanted.manifests_modules else manifest.modules
        self.trees: list[ModuleTree] = [tree for tree in trees if tree.name not in theirs]
        self._image: Image | None = None

    def is_ready(self, stage: Stage) -> bool:
        """Whether its kernel is in the store; modules take seconds.

        Errors:
            UserError: a configuration symbol cannot be had.
        """
        return is_built(stage.recipe, store=self.store)

    def build(self, stage: Stage) -> Built:
        """Kernel, modules and image; quick where nothing changed.

        Errors:
            LabError: whatever it was that failed.
        """
        kernel = build_kernel(stage.recipe, store=self.store)
        return Built(
            kernel=kernel,
            modules=build_modules(kernel, self.trees, self.store),
            image=self.image(),
            flavour=self.manifest.flavour(stage.recipe.flavour),
            tests=stage.tests,
            llvm=stage.recipe.llvm,
        )

    def image(self) -> Image:
        """The root file system of all machines."""
        if self._image is None:
            name = self.manifest.default_image
            recipe = self.manifest.image(name).resolve("recipe")
            self._image = images.build(name, recipe, self.store)
        return self._image


def build(manifest: Manifest, wanted: Wanted, store: Store) -> list[Built]:
    """Every stage of a run, one after the other; the first failure ends it.

    Errors:
        LabError: whatever stage it was that failed.
    """
    workshop = Workshop(manifest, wanted, store)
    stages = prepare(manifest, wanted, store)
    workshop.image()
    return [workshop.build(stage) for stage in stages]


def concerned(
    manifest: Manifest, flavours: Sequence[str], tests: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Flavours whose suites hold some of the tests, and those that have none of them.

    Errors:
        UserError: none has any.
    """
    there = tuple(name for name in flavours if share_of(manifest, name, tests))
    if not there:
        raise UserError(
            f"no flavour's suites hold any of {', '.join(tests)}",
            right="--flavour NAME runs what is named, whatever its suites are",
        )
    return there, tuple(name for name in flavours if name not in there)


def share_of(manifest: Manifest, flavour: str, tests: Sequence[str]) -> tuple[str, ...]:
    """Of some tests those that a flavour is for; its suites where there are none."""
    usual = usual_tests(manifest, flavour)
    if not tests or not manifest.flavour(flavour).suites:
        return tuple(tests) or usual
    kept = [part for test in tests for part in _common(test, usual)]
    return tuple(dict.fromkeys(kept))


def _common(test: str, suite: Sequence[str]) -> list[str]:
    """What a test and a suite share: the test where it is in it, or what is of it there."""
    path = PurePath(test.partition("::")[0])
    if any(path.is_relative_to(one) for one in suite):
        return [test]
    return [one for one in suite if PurePath(one).is_relative_to(path)]


def usual_tests(manifest: Manifest, flavour: str) -> tuple[str, ...]:
    """What is run under a flavour where nobody names a test."""
    names = manifest.flavour(flavour).suites or (USUAL_SUITE,)
    return tuple(dict.fromkeys(path for name in names for path in manifest.suite(name)))
