# SPDX-License-Identifier: GPL-2.0-only
"""What goes into an image: vm-images/*.yaml, typed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from lab import marked
from lab.errors import UserError
from lab.manifest import Entry

Text = Annotated[str, Field(min_length=1)]


class Recipe(Entry):
    """One image's recipe.

    Attributes:
        suite: of Debian.
        overlay: directory whose files are copied over the tree.
        program: directory with the C of the lab's own program, which is init among
            others.
        names: links to it beside it.
        power: links to it in /usr/sbin.
        packages: each with its reason.
        exclude: patterns of paths that no package may install.
    """

    suite: Annotated[str, Field(pattern=r"^[a-z][a-z0-9.-]*$")]
    overlay: Text
    program: Text
    names: tuple[str, ...]
    power: tuple[str, ...] = ()
    packages: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")], Text]
    exclude: tuple[str, ...] = ()


def read(file: Path) -> Recipe:
    """The recipe in a file.

    Raises:
        UserError: at the file and line of the mistake.
    """
    raw = marked.load(file)
    try:
        recipe = Recipe.model_validate(raw)
    except ValidationError as error:
        detail = error.errors()[0]
        path = [str(step) for step in detail["loc"] if step != "[key]"]
        raise UserError(
            f"`{'.'.join(path)}`: {detail['msg'].lower()}", file=file, line=_line(raw, path)
        ) from None
    for field in ("overlay", "program"):
        if not recipe.resolve(field).is_dir():
            raise recipe.where(field).error(f"there is no `{recipe.resolve(field)}`")
    return recipe


def _line(raw: marked.MarkedDict, path: list[str]) -> int:
    """The line of the innermost key on a path that stands in the file."""
    line = raw.where.line
    value: object = raw
    for step in path:
        if not isinstance(value, marked.MarkedDict) or step not in value:
            break
        line = value.key_at[step].line
        value = value[step]
    return line
