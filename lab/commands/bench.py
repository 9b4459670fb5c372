# SPDX-License-Identifier: GPL-2.0-only
"""lab bench: what things cost, in guest instructions, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.options import Json, Kernel

if TYPE_CHECKING:
    from lab.perf.table import Filters

TESTS = {"filter": "tests/bench/test_filter_cost.py"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("bench")(bench)


def bench(
    name: Annotated[str, typer.Argument(metavar="filter", help="Which bench.")],
    kernel: Kernel = None,
    runs: Annotated[
        int, typer.Option(metavar="N", min=1, help="All must give the same, to 4 digits.")
    ] = 1,
    write: Annotated[
        Path | None,
        typer.Option(metavar="PAGE", help="Put the table there, between its comments."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure what filters cost a packet, in a machine whose clock counts instructions."""
    import tempfile

    from lab.errors import KernelError, UserError
    from lab.perf import table

    if name not in TESTS:
        raise UserError(f"no bench is called {name!r}; there is {', '.join(TESTS)}")
    if write is not None:
        table.place(write, name)  # before minutes are spent on measuring
    found = []
    with tempfile.TemporaryDirectory(prefix="lab-bench-") as directory:
        for number in range(runs):
            file = Path(directory) / f"{number}.json"
            _measure(TESTS[name], kernel, file)
            found.append(_read(file))
    for other in found[1:]:
        if unlike := table.differences(found[0], other):
            one = unlike[0]
            raise KernelError(
                f"{len(unlike)} figures are not the same twice, first of all "
                f"{one.what}: {one.first} and {one.second}"
            )
    typer.echo(found[0].model_dump_json() if as_json else table.markdown(found[0]), nl=as_json)
    if write is not None:
        table.write(write, name, found[0])


def _read(file: Path) -> Filters:
    """What the bench's test has written.

    Raises:
        InfraError: nothing is there, though the run did not fail.
    """
    from lab.errors import InfraError
    from lab.perf.table import Filters

    try:
        return Filters.model_validate_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InfraError(
            "the bench's test has passed and measured nothing", right="look at results/latest"
        ) from None


def _measure(test: str, kernel: str | None, file: Path) -> None:
    """Run the bench's test, which writes what it found to the file."""
    import sys

    from lab import process

    argv = [sys.executable, "-m", "lab", "test", "-s", "-n", "0", test]
    if kernel is not None:
        argv += ["--kernel", kernel]
    done = process.run(
        argv,
        env={"LAB_BENCH_OUT": str(file)},
        on_line=lambda line: typer.echo(line, err=True),
        check=False,
    )
    if done.status:
        raise typer.Exit(done.status)
