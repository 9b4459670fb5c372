# SPDX-License-Identifier: GPL-2.0-only
"""lab kernel build, lab kernel config, lab kernel lint, lab kernel update."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from lab.commands.options import Config, Flavour, Json, Llvm, Patches, chosen

Which: TypeAlias = Annotated[
    str | None,
    typer.Argument(metavar="NAME|PATH", help="In lab.yaml, or a kernel tree of your own."),
]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(
        help="Build kernels; read their patches; move what lab.lock pins.", no_args_is_help=True
    )
    group.command("build")(build)
    group.command("config")(config_of)
    group.command("lint")(lint)
    group.command("update")(update)
    app.add_typer(group, name="kernel")


def build(  # noqa: PLR0917 - typer's parameters are the command's options
    kernel: Which = None,
    patches: Patches = None,
    config: Config = None,
    flavour: Flavour = "default",
    llvm: Llvm = False,
    as_json: Json = False,
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
        lab.kernel_or_default(kernel),
        store=store,
        flavour=flavour,
        patches=chosen(patches),
        config=config,
        llvm=llvm,
    )
    built = build_kernel(recipe, store=store)
    if as_json:
        said = json.loads(built.build_json.read_text())
        print(json.dumps({"key": built.key, "path": str(built.path), **said}, indent=1))
    else:
        print(built.path)


def config_of(
    kernel: Which = None,
    patches: Patches = None,
    config: Config = None,
    flavour: Flavour = "default",
    llvm: Llvm = False,
) -> None:
    """Check a kernel's configuration without building it; prints where it lies."""
    from lab import manifest
    from lab.kernel.build import configured
    from lab.kernel.recipe import make_recipe
    from lab.store import Store

    store = Store()
    lab = manifest.read()
    recipe = make_recipe(
        lab,
        lab.kernel_or_default(kernel),
        store=store,
        flavour=flavour,
        patches=chosen(patches),
        config=config,
        llvm=llvm,
    )
    print(configured(recipe, store=store))


def lint(
    kernels: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME|PATH|all",
            help="In lab.yaml, or kernel trees of your own; the default kernel if left out.",
        ),
    ] = None,
    patches: Patches = None,
) -> None:
    """Read kernels' patches as their maintainers would: each tree's own checkpatch --strict."""
    from lab import manifest
    from lab.errors import KernelError
    from lab.kernel.checkpatch import Finding, check_patches
    from lab.kernel.recipe import make_recipe
    from lab.progress import progress
    from lab.store import Store

    store = Store()
    lab = manifest.read()
    words = kernels or [lab.default_kernel]
    names = [name for word in words for name in (lab.kernels if word == "all" else (word,))]
    all_findings: list[Finding] = []
    for name in dict.fromkeys(names):
        recipe = make_recipe(lab, name, store=store, patches=chosen(patches))
        with recipe.open_source() as tree, progress(f"checkpatch of {recipe.source.name}"):
            findings = check_patches(tree.path, recipe.series, store)
        for finding in findings:
            print(finding)
        if not findings:
            count = len(recipe.series.patches)
            print(f"{recipe.source.name}: {count} patches: nothing to say")
        all_findings += findings
    if all_findings:
        raise KernelError(f"{len(all_findings)} findings in the patches")


def update(
    kernels: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="All of lab.yaml if left out.")
    ] = None,
    as_json: Json = False,
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
