# SPDX-License-Identifier: GPL-2.0-only
"""lab modules build."""

from __future__ import annotations

import typer

from lab.commands.options import (
    Config,
    Flavour,
    Json,
    Kernel,
    Llvm,
    Modules,
    Patches,
    chosen,
)


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help="Build modules against an exact kernel.", no_args_is_help=True)
    group.callback()(_group)
    group.command("build")(build)
    group.command("lint")(lint)
    app.add_typer(group, name="modules")


def _group() -> None:
    """Modules of lab.yaml and of your own."""


def build(  # noqa: PLR0917 - typer's parameters are the command's options
    kernel: Kernel = None,
    flavour: Flavour = "default",
    module: Modules = None,
    patches: Patches = None,
    config: Config = None,
    llvm: Llvm = False,
    as_json: Json = False,
) -> None:
    """Build every module tree, and the payload disk; prints where it lies."""
    import json

    from lab import manifest
    from lab.kernel.build import build_kernel
    from lab.kernel.recipe import LOCK, make_recipe
    from lab.modules.build import build_modules
    from lab.modules.tree import module_trees
    from lab.store import Store

    store = Store()
    lab = manifest.read()
    trees = module_trees(lab, module or (), lock=LOCK, store=store)
    recipe = make_recipe(
        lab,
        lab.kernel_or_default(kernel),
        store=store,
        flavour=flavour,
        patches=chosen(patches),
        config=config,
        llvm=llvm,
    )
    built = build_modules(build_kernel(recipe, store=store), trees, store)
    if as_json:
        said = json.loads((built.path / "modules.json").read_text())
        print(json.dumps({"key": built.key, "payload": str(built.payload), **said}, indent=1))
    else:
        print(built.path)


def lint(
    kernel: Kernel = None,
    flavour: Flavour = "default",
    module: Modules = None,
    llvm: Llvm = False,
) -> None:
    """Read modules as the kernel's maintainers would: checkpatch --strict, sparse, W=1."""
    from lab import manifest
    from lab.errors import KernelError
    from lab.kernel.build import build_kernel
    from lab.kernel.recipe import LOCK, make_recipe
    from lab.modules.lint import lint as lint_tree
    from lab.modules.tree import module_trees
    from lab.store import Store

    store = Store()
    lab = manifest.read()
    trees = module_trees(lab, module or (), lock=LOCK, store=store)
    recipe = make_recipe(
        lab, lab.kernel_or_default(kernel), store=store, flavour=flavour, llvm=llvm
    )
    built = build_kernel(recipe, store=store)
    findings = [finding for tree in trees for finding in lint_tree(built, tree, store)]
    for finding in findings:
        print(finding)
    if findings:
        raise KernelError(f"{len(findings)} findings in the modules' C")
    print(f"{', '.join(tree.name for tree in trees)}: nothing to say")
