# SPDX-License-Identifier: GPL-2.0-only
"""lab kselftest: the kernel's own selftests, each program in a pristine machine."""

from __future__ import annotations

from typing import Annotated

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

TESTS = "tests/kselftest"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("kselftest", context_settings=PASSES_WORDS_ON)(kselftest)


def kselftest(  # noqa: PLR0917 - typer calls it by name
    context: typer.Context,
    target: Annotated[
        str, typer.Argument(metavar="TARGET[,TARGET]", help="Such as net/netfilter.")
    ],
    kernel: Kernels = None,
    flavour: Flavours = "default",
    patches: Patches = None,
    config: Config = None,
    module: Modules = None,
    llvm: Llvm = False,
    before: Annotated[
        str, typer.Option(metavar="COMMAND", help="Run in the guest before each program.")
    ] = "",
    compare: Annotated[
        bool,
        typer.Option(help="Run each program without --before as well: only differences fail."),
    ] = False,
    limit: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            min=1,
            max=86400,
            help="For each program, instead of the kernel's own.",
        ),
    ] = None,
    workers: Annotated[
        str, typer.Option("-n", metavar="N|auto", help="Programs run at once in a cell.")
    ] = "auto",
) -> None:
    """Run the kernel's selftests; each program is a test of the report.

    Words that are not the lab's go to pytest: `lab kselftest net/netfilter -k nft_nat`.
    """
    import time

    from lab import manifest
    from lab.commands.test import run_cells, save_cell, workers_of
    from lab.errors import UserError
    from lab.kernel.kselftest import build_selftests, refuse_odd
    from lab.kernel.recipe import make_recipe
    from lab.results.merge import new_run, see_root
    from lab.store import Store
    from lab.testing import stages
    from lab.testing.planning import Way, plan
    from lab.testing.rig import checkout
    from lab.testing.times import earlier_times
    from lab.testing.words import Words
    from lab.vm import argv

    if compare and not before:
        raise UserError("--compare compares with and without --before", right="--before COMMAND")
    began = time.time()
    at_once = workers_of(workers)
    targets = target.split(",")
    refuse_odd(targets)
    home = checkout() / "results"
    see_root(home)  # before minutes are spent on a build
    argv.program()
    lab, store = manifest.read(), Store()
    kernels, flavours = stages.select(lab, kernel or (), flavour=flavour)
    selftests = {
        name: build_selftests(
            make_recipe(lab, name, store=store, patches=chosen(patches), llvm=llvm),
            targets,
            store=store,
        )
        for name in kernels
    }
    wanted = stages.Wanted(
        kernels=kernels,
        flavours=flavours,
        patches=chosen(patches),
        config=config,
        modules=tuple(module or ()),
        llvm=llvm,
    )
    options = [*context.args, "--kselftest-before", before]
    if compare:
        options.append("--kselftest-compare")
    if limit is not None:
        options += ["--kselftest-limit", str(limit)]
    way = Way(
        words=Words(options=tuple(options), tests=(TESTS,)),
        workers=at_once,
        shared=False,
    )
    built = stages.build(lab, wanted, store)
    directory = new_run(home)
    cells = plan(built, way, run=directory.name, times=earlier_times(home))
    files = []
    asked = [name for name in kernels for _ in flavours]
    for name, cell in zip(asked, cells, strict=True):
        options = [*cell.options, "--kselftest", selftests[name].key]
        files.append(save_cell(cell.model_copy(update={"options": tuple(options)}), directory))
    raise typer.Exit(run_cells([files], directory, began=began))
