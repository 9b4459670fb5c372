# SPDX-License-Identifier: GPL-2.0-only
"""lab gc: what store and results hold, and taking away what was not used for long."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lab.commands.options import Json

if TYPE_CHECKING:
    from lab.store import Store, Stored

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("gc")(gc)


def gc(  # noqa: PLR0917 - typer's parameters are the command's options
    older_than: Annotated[
        float, typer.Option(metavar="DAYS", min=0, help="Take away what was not used for so long.")
    ] = 14,
    keep: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Then go on until this much is left, e.g. 20G."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every artifact; nothing is taken away.")
    ] = False,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead of the checkout's results/.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Take away what was not used for long, of the store and of old runs' results.

    What is in use always stays, and so does the latest run.
    """
    from lab.manifest import ROOT
    from lab.results import old
    from lab.store import Store

    store = Store()
    if verify:
        _verify(store, as_json=as_json)
        return
    keep_bytes = None if keep is None else parse_size(keep)
    things = store.gc(
        older_than=older_than * 86400,
        keep_bytes=keep_bytes,
        dry_run=dry_run,
        others=old.runs(results or ROOT / "results"),
        take_other=old.take_away,
    )
    if as_json:
        _show_json(things)
    else:
        _show_table(things, dry_run=dry_run)


def _verify(store: Store, *, as_json: bool) -> None:
    import json

    from lab.errors import InfraError

    torn = store.verify()
    if as_json:
        print(json.dumps(torn, indent=1))
        if torn:
            raise typer.Exit(InfraError.exit_status)
    elif torn:
        raise InfraError("torn artifacts (they are made again when asked for):\n" + "\n".join(torn))


def parse_size(text: str) -> int:
    """``20G`` in bytes."""
    from lab.errors import UserError

    found = re.fullmatch(r"([0-9]+)([KMGT]?)(i?B)?", text, re.IGNORECASE)
    if found is None:
        raise UserError(f"`{text}` is no size", right="a number and K, M, G or T: 20G")
    return int(found[1]) * UNITS[found[2].upper()]


def _show_json(things: list[Stored]) -> None:
    import dataclasses
    import json

    rows = [{**dataclasses.asdict(thing), "path": str(thing.path)} for thing in things]
    print(json.dumps(rows, indent=1))


def _show_table(things: list[Stored], *, dry_run: bool) -> None:
    from lab.progress import seconds, size

    gone = "would go" if dry_run else "removed"
    for thing in things:
        state = gone if thing.removed else "in use" if thing.used else ""
        print(
            f"{thing.kind:14} {thing.name:24} {size(thing.size):>10} "
            f"{seconds(thing.age):>14}  {state}".rstrip()
        )
    left = sum(thing.size for thing in things if not thing.removed)
    freed = sum(thing.size for thing in things if thing.removed)
    print(f"{gone}: {size(freed)}, left: {size(left)}")
