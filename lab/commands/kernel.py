# SPDX-License-Identifier: GPL-2.0-only
"""lab kernel build, lab kernel update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help="Build kernels; move what lab.lock pins.", no_args_is_help=True)
    group.command("build")(build)
    group.command("update")(update)
    app.add_typer(group, name="kernel")


def build(  # noqa: PLR0917 - typer's parameters are the command's options
    kernel: Annotated[
        str | None,
        typer.Argument(metavar="[NAME|PATH]", help="In lab.yaml, or a kernel tree of your own."),
    ] = None,
    patches: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SERIES",
            help="In place of the kernel's own patches; may be repeated; `none` for none.",
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A .config of your own as the base.")
    ] = None,
    flavour: Annotated[str, typer.Option(metavar="NAME", help="In lab.yaml.")] = "default",
    llvm: Annotated[bool, typer.Option("--llvm", help="With clang and lld.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Build a kernel and put it into the store; prints where it lies."""
    import json

    from lab import manifest
    from lab.kernel.build import build_kernel
    from lab.kernel.recipe import make_recipe
    from lab.store import Store

    store = Store()
    lab = manifest.read()
    recipe = make_recipe(
        lab,
        kernel or lab.default_kernel,
        store=store,
        flavour=flavour,
        patches=None if patches is None else [name for name in patches if name != "none"],
        config=config,
        llvm=llvm,
    )
    built = build_kernel(recipe, store=store)
    if as_json:
        said = json.loads(built.build_json.read_text())
        print(json.dumps({"key": built.key, "path": str(built.path), **said}, indent=1))
    else:
        print(built.path)


def update(
    kernels: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="All of lab.yaml if left out.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Move lab.lock to the newest version of each source; prints what has changed."""
    import json

    from lab import manifest
    from lab.kernel.recipe import LOCK
    from lab.progress import note
    from lab.sources.update import as_records
    from lab.sources.update import update as move
    from lab.store import Store

    changes = move(kernels or (), manifest=manifest.read(), lock=LOCK, store=Store())
    if as_json:
        print(json.dumps(as_records(changes), indent=1))
        return
    for change in changes:
        print(change)
    if not changes:
        note(f"{LOCK.name}: all is newest already")
