# SPDX-License-Identifier: GPL-2.0-only
"""lab cell run, lab cell merge: what a batch engine calls, on whatever machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help="Run planned cells one by one.", no_args_is_help=True)
    group.command("run")(run)
    group.command("merge")(merge)
    app.add_typer(group, name="cell")


def run(
    file: Annotated[Path, typer.Argument(metavar="CELL.json", help="Of `lab test --plan`.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json.")] = False,
) -> None:
    """Run one cell alone; its results land beside its file."""
    from lab.testing.running import line, run_cell

    # Standard output is the JSON's alone.
    result = run_cell(file, output=sys.stderr if as_json else None)
    if as_json:
        print(result.model_dump_json(indent=1))
    else:
        if result.message:
            print(f"cell {result.name}: {result.message}", file=sys.stderr)
        print(line(result))
    raise typer.Exit(result.exit)


def merge(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run.")],
) -> None:
    """Merge the results of a run's cells; a cell without results is the lab's failure."""
    from lab.errors import UserError
    from lab.results import merge as merging
    from lab.results.record import summary

    files = sorted(directory.absolute().glob("cells/*/cell.json"))
    if not files:
        raise UserError("not the directory of a run: it has no cells", file=directory)
    cells = [merging.load_cell_result(file.with_name("results.json")) for file in files]
    began = min((cell.started for cell in cells), default=time.time())
    result = merging.merge(directory.absolute(), cells, command=sys.argv, started=began)
    print(summary(result.tests, seconds=result.seconds))
    raise typer.Exit(result.exit)
