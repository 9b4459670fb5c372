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
Kernels: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME|PATH|all",
        help="A kernel of lab.yaml, or a kernel tree of your own; may be repeated.",
    ),
]
Flavour: TypeAlias = Annotated[str, typer.Option(metavar="NAME", help="In lab.yaml.")]
Flavours: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME|all", help="A flavour of lab.yaml.")
]
Modules: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(metavar="PATH", help="A module tree of your own; may be repeated."),
]
Patches: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SERIES",
        help="In place of the kernel's own patches; may be repeated; `none` for none.",
    ),
]
Config: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A .config of your own as the base.")
]
Llvm: TypeAlias = Annotated[bool, typer.Option("--llvm", help="With clang and lld.")]
Json: TypeAlias = Annotated[bool, typer.Option("--json", help="For scripts.")]

#: Of a command whose unknown words are pytest's.
PASSES_WORDS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


def chosen(patches: list[str] | None) -> tuple[str, ...] | None:
    """The series that ``--patches`` names; None if it is left out."""
    return None if patches is None else tuple(name for name in patches if name != "none")
