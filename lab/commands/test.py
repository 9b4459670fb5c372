# SPDX-License-Identifier: GPL-2.0-only
"""lab test: build what is to be tested, plan cells, run them, merge their results."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.options import Config, Llvm, Patches, chosen

if TYPE_CHECKING:
    from lab.results.record import CellResult
    from lab.testing.cell import Cell


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        "test",
        # Whatever is not ours is pytest's.
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(test)


def test(  # noqa: PLR0917 - typer calls it by name
    context: typer.Context,
    kernel: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|PATH|all",
            help="A kernel of lab.yaml, or a kernel tree of your own; may be repeated.",
        ),
    ] = None,
    flavour: Annotated[
        str, typer.Option(metavar="default|debug|all", help="In lab.yaml.")
    ] = "default",
    patches: Patches = None,
    config: Config = None,
    module: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="A module tree of your own; may be repeated."),
    ] = None,
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

    Without a test named, everything in tests/e2e is run.
    """
    from lab import manifest
    from lab.provider import vagrant_preflight
    from lab.results.merge import new_run
    from lab.store import Store
    from lab.testing import stages
    from lab.testing.planning import Way, earlier_times, plan
    from lab.testing.rig import checkout
    from lab.testing.words import Words, sort_words
    from lab.vm import argv

    began = time.time()
    root = checkout()
    words = sort_words(context.args, here=Path.cwd(), root=root)
    lab = manifest.read()
    if not words.tests:
        words = Words(options=words.options, tests=tuple(lab.suite("e2e")))
    kernels, flavours = stages.select(lab, kernel or (), flavour=flavour)
    way = Way(
        words=words,
        provider=_one_of("provider", provider, ("qemu", "vagrant")),
        accel=_one_of("accelerator", accel, ("auto", "tcg", "kvm")),
        workers=workers_of(workers),
        shards=shards,
        shared=shared,
    )
    if provider == "qemu":
        argv.program()  # before minutes are spent on a build
    else:
        vagrant_preflight.require()
    wanted = stages.Wanted(
        kernels=kernels,
        flavours=flavours,
        patches=chosen(patches),
        config=config,
        modules=tuple(module or ()),
        llvm=llvm,
    )
    built = stages.build(lab, wanted, Store())
    home = (results or root / "results").absolute()
    directory = new_run(home)
    cells = plan(built, way, run=directory.name, times=earlier_times(home))
    files = [save_cell(cell, directory) for cell in cells]
    if plan_only:
        for file in files:
            print(file)
        return
    raise typer.Exit(run_cells(files, directory, began=began))


def save_cell(cell: Cell, directory: Path) -> Path:
    """Write a cell where its results will land."""
    path = directory / "cells" / cell.name / "cell.json"
    cell.save(path)
    return path


def run_cells(files: list[Path], directory: Path, *, began: float) -> int:
    """Run cells one after the other and merge their results; the exit status."""
    from lab.progress import note
    from lab.results.merge import merge
    from lab.results.record import summary
    from lab.testing.running import run_cell

    cells: list[CellResult] = []
    try:
        for file in files:
            note(f"cell {file.parent.name}: {file.parent}")
            cells.append(run_cell(file))
    finally:
        # What an interrupt leaves is still worth a report.
        if cells:
            run = merge(directory, cells, command=sys.argv, started=began)
    for cell in cells:
        if cell.message:
            note(f"cell {cell.name}: {cell.message}")
    note(f"results: {directory / 'report.html'}")
    print(summary(run.tests, seconds=run.seconds), flush=True)
    return run.exit


def workers_of(text: str) -> int:
    """The number of workers that `-n` asks for."""
    import os

    from lab.errors import UserError

    if text == "auto":
        return len(os.sched_getaffinity(0))
    if not text.isdigit():
        raise UserError(f"`-n {text}` is no number of workers", right="a number, or auto")
    return int(text)


def _one_of(what: str, value: str, known: tuple[str, ...]) -> str:
    from lab.errors import UserError

    if value not in known:
        raise UserError(f"there is no {what} `{value}`", right=" or ".join(known))
    return value
