# SPDX-License-Identifier: GPL-2.0-only
"""lab test: build what is to be tested, plan cells, run them, merge their results."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.options import (
    PASSES_WORDS_ON,
    Config,
    Flavours,
    Kernels,
    Llvm,
    Modules,
    Patches,
    chosen,
)

if TYPE_CHECKING:
    from lab.manifest import Manifest
    from lab.results.record import CellResult, RunResult, Untested
    from lab.testing.cell import Cell
    from lab.testing.planning import Way
    from lab.testing.stages import Wanted


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "test",
        context_settings=PASSES_WORDS_ON,
        options_metavar="[OPTIONS] [TEST | PYTEST'S OPTION]...",
    )(test)


def test(  # noqa: PLR0917 - typer calls it by name
    context: typer.Context,
    kernel: Kernels = None,
    flavour: Flavours = "default",
    patches: Patches = None,
    config: Config = None,
    module: Modules = None,
    llvm: Llvm = False,
    provider: Annotated[
        str, typer.Option(metavar="qemu|vagrant", help="Where machines come from.")
    ] = "qemu",
    accel: Annotated[str, typer.Option(metavar="auto|tcg|kvm")] = "auto",
    workers: Annotated[
        str, typer.Option("-n", metavar="N|auto", help="Tests run at once in a cell.")
    ] = "auto",
    shards: Annotated[
        int, typer.Option(metavar="N", min=1, help="Cells that share the tests of a kernel.")
    ] = 1,
    turn: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            help="Of what is chosen, the Nth kernel and flavour; the usual pair has no turn.",
        ),
    ] = None,
    shared: Annotated[
        bool, typer.Option(help="Under debug, also run all tests in one machine.")
    ] = True,
    plan_only: Annotated[
        bool, typer.Option("--plan", help="Write the cells for `lab cell run`; run none.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of the checkout's results/.")
    ] = None,
) -> None:
    """Build, boot and test; words that are not the lab's go to pytest.

    Without a test named, the suites of each flavour are run: everything in
    tests/e2e where lab.yaml does not say otherwise. `--flavour all` runs of what
    is named what those suites hold; a flavour by its name runs all of it.
    """
    from dataclasses import replace

    from lab import manifest
    from lab.progress import note
    from lab.provider import vagrant_preflight
    from lab.results.merge import new_run, see_root
    from lab.store import Store
    from lab.testing import stages
    from lab.testing.planning import Way, plan
    from lab.testing.rig import checkout
    from lab.testing.times import earlier_times
    from lab.testing.words import sort_words
    from lab.vm import argv

    began = time.time()
    root = checkout()
    words = sort_words(context.args, here=Path.cwd(), root=root)
    lab = manifest.read()
    kernels, flavours = stages.select(lab, kernel or (), flavour=flavour)
    if turn is not None:
        kernels, flavours = stages.turn(kernels, flavours, turn, usual=lab.default_kernel)
    named: tuple[str, ...] = ()
    if flavour == "all" and turn is None and words.tests:
        flavours, others = stages.concerned(lab, flavours, words.tests)
        named, words = words.tests, replace(words, tests=())
        for other in others:
            note(f"not under {other}, whose suites are others: --flavour {other} has them run")
    way = Way(
        words=words,
        provider=_one_of("provider", provider, ("qemu", "vagrant")),
        accel=_one_of("accelerator", accel, ("auto", "tcg", "kvm")),
        workers=workers_of(workers),
        shards=shards,
        shared=shared,
    )
    home = (results or root / "results").absolute()
    # This and what follows it: before minutes are spent on a build.
    see_root(home)
    if provider == "qemu":
        argv.program()
    else:
        vagrant_preflight.require()
    wanted = stages.Wanted(
        kernels=kernels,
        flavours=flavours,
        tests=named,
        patches=chosen(patches),
        config=config,
        modules=tuple(module or ()),
        llvm=llvm,
    )
    if len(kernels) * len(flavours) > 1 and not plan_only:
        raise typer.Exit(_run_matrix(lab, wanted, way, home=home, began=began))
    built = stages.build(lab, wanted, Store())
    directory = new_run(home)
    cells = plan(built, way, run=directory.name, times=earlier_times(home))
    files = [save_cell(cell, directory) for cell in cells]
    if plan_only:
        for file in files:
            print(file)
        return
    raise typer.Exit(run_cells([files], directory, began=began))


def _run_matrix(lab: Manifest, wanted: Wanted, way: Way, *, home: Path, began: float) -> int:
    """Test each kernel and flavour as soon as it stands; the exit status."""
    from lab.results.merge import new_run
    from lab.results.record import Untested
    from lab.store import Store
    from lab.testing import stages
    from lab.testing.aside import build_aside
    from lab.testing.matrix import bring
    from lab.testing.planning import Built, plan
    from lab.testing.times import earlier_times

    store = Store()
    workshop = stages.Workshop(lab, wanted, store)
    planned, untested = stages.prepare_each(lab, wanted, store)
    workshop.image()
    times, directory = earlier_times(home), new_run(home)

    def batches() -> Iterator[list[Path]]:
        standing: list[Built] = []
        for batch in bring(
            planned,
            is_ready=workshop.is_ready,
            build=workshop.build,
            aside=lambda stage, stop: build_aside(
                stage, wanted, directory / "builds" / f"{stage.name}.log", stop
            ),
        ):
            untested.extend(Untested.of(one.stage.name, one.error) for one in batch if one.error)
            new = [one.built for one in batch if one.built]
            cells = plan(new, way, run=directory.name, times=times, before=standing)
            standing += new
            yield [save_cell(cell, directory) for cell in cells]

    return run_cells(batches(), directory, began=began, untested=untested)


def save_cell(cell: Cell, directory: Path) -> Path:
    """Write a cell where its results will land."""
    path = directory / "cells" / cell.name / "cell.json"
    cell.save(path)
    return path


def run_cells(
    batches: Iterable[list[Path]],
    directory: Path,
    *,
    began: float,
    untested: Sequence[Untested] = (),
) -> int:
    """Run cells one after the other and merge their results; the exit status.

    Args:
        batches: of cells' files; the next is asked for when one is through.
        untested: what could not be built; known when the last batch is.
    """
    from lab.errors import LabError
    from lab.progress import note
    from lab.results.merge import merge
    from lab.results.record import Untested
    from lab.testing.running import run_cell

    cells: list[CellResult] = []
    broken: list[Untested] = []
    waiting = iter(batches)
    try:
        for files in waiting:
            for file in files:
                note(f"cell {file.parent.name}: {file.parent}")
                try:
                    cells.append(run_cell(file))
                except LabError as error:  # the other cells may have what it lacks
                    broken.append(Untested.of(file.parent.name, error))
    finally:
        if isinstance(waiting, Generator):
            waiting.close()  # it may have a build running
        # What an interrupt leaves is still worth a report.
        if cells or untested or broken:
            run = merge(
                directory,
                cells,
                command=sys.argv,
                started=began,
                untested=[*untested, *broken],
            )
    _tell(run, directory)
    return run.exit


def _tell(run: RunResult, directory: Path) -> None:
    from lab.progress import note, size
    from lab.results.compare import differences
    from lab.results.old import MUCH
    from lab.results.record import summary
    from lab.store import tree_size

    for cell in run.cells:
        if cell.message:
            note(f"cell {cell.name}: {cell.message}")
    for one in run.untested:
        note(f"not tested: {one.name}: {one.message}")
    for line in differences(run):
        note(line)
    note(f"results: {directory / 'report.html'}")
    if (held := tree_size(directory.parent)) > MUCH:
        note(f"{directory.parent} holds {size(held)} by now; `lab gc` takes what is old")
    print(summary(run.tests, seconds=run.seconds), flush=True)


def workers_of(text: str) -> int:
    """The number of workers that `-n` asks for."""
    import os

    from lab.errors import UserError

    if text == "auto":
        return len(os.sched_getaffinity(0))
    if not re.fullmatch("[0-9]+", text):
        raise UserError(f"`-n {text}` is no number of workers", right="a number, or auto")
    return int(text)


def _one_of(what: str, value: str, known: tuple[str, ...]) -> str:
    from lab.errors import UserError

    if value not in known:
        raise UserError(f"there is no {what} `{value}`", right=" or ".join(known))
    return value
