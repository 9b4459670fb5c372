# SPDX-License-Identifier: GPL-2.0-only
"""From built stages to cells: one for each kernel, flavour and shard."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from lab.image.build import Image
from lab.kernel.artifact import Kernel
from lab.manifest import FlavourSpec
from lab.modules.artifact import ModuleSet
from lab.testing.cell import Cell, Peer
from lab.testing.times import Place, Times
from lab.testing.words import Words


@dataclass(frozen=True, kw_only=True)
class Built:
    """What one kernel and flavour of a run stand on.

    Attributes:
        tests: what is run on it where the user names no tests.
        llvm: whether clang built it.
    """

    kernel: Kernel
    modules: ModuleSet | None
    image: Image
    flavour: FlavourSpec
    tests: tuple[str, ...] = ()
    llvm: bool = False

    @property
    def name(self) -> str:
        """As its cells are called, without the shard."""
        return called(self.kernel.name, self.kernel.flavour, llvm=self.llvm)


def called(kernel: str, flavour: str, *, llvm: bool) -> str:
    """A kernel and flavour by one name: "6.12-default", or "6.12-default-llvm"."""
    return f"{kernel}-{flavour}" + ("-llvm" if llvm else "")


def plain(name: str) -> str:
    """A name as that of a directory, in which not all can be that a tree is called."""
    return re.sub(r"[^\w.+-]+", "-", name)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How the tests are to be run; the same for every cell of a run."""

    words: Words
    provider: str = "qemu"
    accel: str = "auto"
    workers: int = 0
    shards: int = 1
    shared: bool = True


def plan(
    built: Sequence[Built],
    way: Way,
    *,
    run: str,
    times: Times,
    before: Sequence[Built] = (),
) -> list[Cell]:
    """The cells of a run, in the order in which they are run.

    Args:
        times: of the latest runs.
        before: what stood earlier in this run: no cells any more, but peers.
    """
    peers = tuple(_peer(stage) for stage in (*before, *built))
    return [
        cell.model_copy(update={"peers": peers})
        for stage in built
        for cell in _cells(stage, way, run=run, times=times)
    ]


def _peer(stage: Built) -> Peer:
    return Peer(
        name=stage.kernel.name,
        flavour=stage.kernel.flavour,
        kernel=stage.kernel.key,
        modules=stage.modules.key if stage.modules else None,
        patience=stage.flavour.patience,
        memory=stage.flavour.memory,
        cmdline=tuple(stage.flavour.cmdline),
    )


def _cells(stage: Built, way: Way, *, run: str, times: Times) -> Iterator[Cell]:
    place = Place(kernel=stage.kernel.name, flavour=stage.kernel.flavour)
    base = plain(stage.name)
    cell = Cell(
        run=run,
        name=f"{base}-1",
        kernel=stage.kernel.key,
        kernel_name=stage.kernel.name,
        modules=stage.modules.key if stage.modules else None,
        image=stage.image.key,
        flavour=stage.kernel.flavour,
        provider=way.provider,
        accel=way.accel,
        patience=stage.flavour.patience,
        memory=stage.flavour.memory,
        cmdline=tuple(stage.flavour.cmdline),
        tests=way.words.tests or stage.tests,
        options=way.words.options,
        shards=way.shards,
        workers=way.workers,
        times=times.at(place),
    )
    for shard in range(1, way.shards + 1):
        yield cell.model_copy(update={"name": f"{base}-{shard}", "shard": shard})
    if way.shared and stage.flavour.shared:
        yield cell.model_copy(
            update={
                "name": f"{base}-shared",
                "shared": True,
                "workers": 0,
                "shards": 1,
                "times": times.at(replace(place, shared=True)),
            }
        )
