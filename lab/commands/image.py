# SPDX-License-Identifier: GPL-2.0-only
"""lab image build, lab image box."""

from __future__ import annotations

from typing import Annotated

import typer

from lab.commands.options import Json


def register(app: typer.Typer) -> None:
    """Add the command group."""
    group = typer.Typer(help="Build the guests' file systems.", no_args_is_help=True)
    group.command("build")(build)
    group.command("box")(box)
    app.add_typer(group, name="image")


def build(
    image: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="In lab.yaml; the default one if left out."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Build an image and put it into the store; prints where it lies."""
    import json

    from lab import manifest
    from lab.image import build as images
    from lab.store import Store

    lab = manifest.read()
    name = lab.default_image if image is None else image
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


def box(
    add: Annotated[bool, typer.Option(help="Give it to Vagrant, offline; root's never is.")] = True,
    catalog: Annotated[
        bool, typer.Option("--catalog", help="Print what `vagrant box add` reads; add nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Build the Vagrant box for libvirt, and add it; says how to publish it."""
    import json
    import os

    from lab.image import box as boxes
    from lab.store import Store
    from lab.testing.rig import checkout

    built = boxes.build(checkout() / "vm-images/box.yaml", Store())
    if catalog:
        print(built.catalog())
        return
    added = add and os.geteuid() != 0 and boxes.add(built)
    if as_json:
        row = {"name": built.name, "version": built.version, "file": str(built.file)}
        print(json.dumps({**row, "added": added}, indent=1))
        return
    print(built.file)
    print(f"{built.name} {built.version}: " + ("vagrant has it" if added else "not added"))
    if os.geteuid() == 0:
        print("Machines run as an ordinary user, who adds it with `lab image box` of their own;")
        print("`lab test --provider vagrant` needs no box added.")
    print(
        "To publish it, put the file on a web server, write its address over `url` in what\n"
        "`lab image box --catalog` prints, and give people that: vagrant box add FILE"
    )
