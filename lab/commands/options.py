# SPDX-License-Identifier: GPL-2.0-only
"""Options that several commands share: one spelling, one help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Kernel: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="NAME|PATH", help="In lab.yaml, or a kernel tree of your own."),
]
Flavour: TypeAlias = Annotated[str, typer.Option(metavar="NAME", help="In lab.yaml.")]
Modules: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="A module tree of your own; may be repeated."),
]
