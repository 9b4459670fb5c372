# SPDX-License-Identifier: GPL-2.0-only
"""lab replay: run the test of a bundle again, with a shell or gdb if wanted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("replay")(replay)


def replay(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="results/<run>/cells/<cell>/bundles/<test>")
    ],
    shell: Annotated[
        bool, typer.Option("--shell", help="A shell on its machine before it is ended.")
    ] = False,
    gdb: Annotated[
        bool, typer.Option("--gdb", help="Machines start stopped and wait for gdb.")
    ] = False,
) -> None:
    """Run a failed test again, on the same kernel, modules and image."""
    from lab.progress import note
    from lab.results.merge import new_run
    from lab.testing.cell import load_cell
    from lab.testing.replay import options
    from lab.testing.rig import checkout
    from lab.testing.running import line, run_cell
    from lab.testing.words import making_tests

    cell = load_cell(bundle / "cell.json" if bundle.is_dir() else bundle)
    directory = new_run(checkout() / "results" / "replays")
    again = cell.model_copy(
        update={
            "options": (*making_tests(cell.options), *options(shell=shell, gdb=gdb)),
            "run": directory.name,
            # The machine of all has no beginning that is the test's.
            "shared": cell.shared and not gdb,
        }
    )
    file = directory / "cells" / cell.name / "cell.json"
    again.save(file)
    result = run_cell(file)
    note(f"logs: {file.parent}")
    print(line(result))
    raise typer.Exit(result.exit)
