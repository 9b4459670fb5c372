# SPDX-License-Identifier: GPL-2.0-only
"""lab image build."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.options import Json


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help="Build the guests' root file system.", no_args_is_help=True)
    group.callback()(_group)
    group.command("build")(build)
    app.add_typer(group, name="image")


def _group() -> None:
    """Keeps `build` a word of its own although it is the only one."""


def build(
    image: Annotated[
        str | None,
        typer.Argument(metavar="[NAME]", help="In lab.yaml; the default one if left out."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build an image and put it into the store; prints where it lies."""
    import json

    from lab import manifest
    from lab.image import build as images
    from lab.store import Store

    lab = manifest.read()
    name = image or lab.default_image
    built = images.build(name, lab.image(name).resolve("recipe"), Store())
    if as_json:
        lines = built.packages.read_text().splitlines()
        packages = dict(line.split(" ", 1) for line in lines)
        print(
            json.dumps(
                {
                    "name": built.name,
                    "key": built.key,
                    "root": str(built.root),
                    "packages": packages,
                },
                indent=1,
            )
        )
    else:
        print(built.root)
