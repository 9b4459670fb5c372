# SPDX-License-Identifier: GPL-2.0-only
"""lab kunit: the kernel's own unit tests, each module in a pristine machine."""

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

TESTS = "tests/kunit"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("kunit", context_settings=PASSES_WORDS_ON)(kunit)


def kunit(  # noqa: PLR0917 - typer calls it by name
    context: typer.Context,
    pattern: Annotated[
        str, typer.Argument(metavar="GLOB", help="Of test modules, such as 'list*'.")
    ] = "*",
    kernel: Kernels = None,
    flavour: Flavours = "default",
    patches: Patches = None,
    config: Config = None,
    module: Modules = None,
    llvm: Llvm = False,
    workers: Annotated[
        str, typer.Option("-n", metavar="N|auto", help="Modules tested at once in a cell.")
    ] = "auto",
) -> None:
    """Run the kernel's KUnit tests; each module is a test of the report.

    The kernel is the flavour's with KUnit on top, a build of its own. Words
    that are not the lab's go to pytest.
    """
    import time

    from lab import manifest
    from lab.commands.test import run_cells, save_cell, workers_of
    from lab.errors import UserError
    from lab.kernel.kunit import FRAGMENT, suite_modules
    from lab.results.merge import new_run, see_root
    from lab.store import Store
    from lab.testing import stages
    from lab.testing.planning import Way, plan
    from lab.testing.rig import checkout
    from lab.testing.times import earlier_times
    from lab.testing.words import Words
    from lab.vm import argv

    began = time.time()
    home = checkout() / "results"
    see_root(home)  # before minutes are spent on a build
    argv.program()
    lab, store = manifest.read(), Store()
    kernels, flavours = stages.select(lab, kernel or (), flavour=flavour)
    wanted = stages.Wanted(
        kernels=kernels,
        flavours=flavours,
        patches=chosen(patches),
        config=config,
        fragments=(FRAGMENT,),
        modules=tuple(module or ()),
        manifests_modules=False,
        llvm=llvm,
    )
    way = Way(
        words=Words(options=(*context.args, "--kunit", pattern), tests=(TESTS,)),
        workers=workers_of(workers),
        shared=False,
    )
    built = stages.build(lab, wanted, store)
    for stage in built:
        if not suite_modules(stage.kernel, pattern):
            known = ", ".join(suite_modules(stage.kernel)) or "none at all"
            raise UserError(
                f"{stage.kernel.name} {stage.kernel.flavour} has no test module `{pattern}`",
                right=f"it has {known}",
            )
    directory = new_run(home)
    cells = plan(built, way, run=directory.name, times=earlier_times(home))
    files = [save_cell(cell, directory) for cell in cells]
    raise typer.Exit(run_cells([files], directory, began=began))
