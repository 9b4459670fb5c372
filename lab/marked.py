# SPDX-License-Identifier: GPL-2.0-only
"""YAML in which every value knows its file and line, and nothing is guessed.

YAML reads 6.10 as the number 6.1, ``no`` as false and 1:30 as ninety; of two
equal keys it drops one.  Each of these is refused here, with what to write
instead.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from lab.errors import UserError

TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Where:
    """A place in a file; ``line`` counts from 1."""

    file: Path
    line: int

    def error(self, what: str, right: str | None = None) -> UserError:
        """An error at this place, to be raised."""
        return UserError(what, file=self.file, line=self.line, right=right)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class MarkedDict(dict[str, Any]):
    """A mapping that knows where it, its keys and its values stand."""

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.key_at: dict[str, Where] = {}
        self.value_at: dict[str, Where] = {}


class MarkedList(list[Any]):
    """A list that knows where it and its items stand."""

    def __init__(self, where: Where) -> None:
        super().__init__()
        self.where = where
        self.value_at: list[Where] = []


Marked: TypeAlias = "MarkedDict | MarkedList | str | int | bool | None"


def load(file: Path) -> MarkedDict:
    """The mapping in a YAML file.

    Raises:
        UserError: it cannot be read, is not YAML, or is not a mapping.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("there is no such file", file=file) from None
    except UnicodeDecodeError as error:
        raise UserError(f"this is not UTF-8 text (byte {error.start})", file=file) from None
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = MarkedDict(Where(file, 1)) if node is None else _Builder(file).build(node)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(file, error) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UserError(
            f"the character U+{int(error.character):04X} is not allowed in YAML",
            file=file,
            line=line,
        ) from None
    except RecursionError:
        raise UserError("this is nested too deeply", file=file) from None
    if not isinstance(value, MarkedDict):
        raise UserError("a mapping is expected here", file=file, line=1, right="`key: value` lines")
    return value


def merge(under: MarkedDict, over: MarkedDict, *, whole: Iterable[str] = ()) -> MarkedDict:
    """Lay one mapping over another: mappings merge, all else is replaced.

    Args:
        under: what is there.
        over: what is laid over it.
        whole: paths (``kernels.*.source``) of mappings that are replaced, too.
    """
    return _merge(under, over, path=(), whole=[tuple(path.split(".")) for path in whole])


def similar(name: str, known: Iterable[str]) -> str | None:
    """What a user with a typo should read: the one that they meant, or all that there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return "there is " + ", ".join(f"`{known}`" for known in names) if names else None


def _merge(
    under: MarkedDict, over: MarkedDict, *, path: tuple[str, ...], whole: list[tuple[str, ...]]
) -> MarkedDict:
    result = MarkedDict(over.where)
    for layer in (under, over):
        for key, value in layer.items():
            here = (*path, key)
            below = result.get(key)
            replaced = any(_matches(here, pattern) for pattern in whole)
            if isinstance(below, MarkedDict) and isinstance(value, MarkedDict) and not replaced:
                result[key] = _merge(below, value, path=here, whole=whole)
            else:
                result[key] = value
            result.key_at[key] = layer.key_at[key]
            result.value_at[key] = layer.value_at[key]
    return result


def _matches(path: tuple[str, ...], pattern: tuple[str, ...]) -> bool:
    return len(path) == len(pattern) and all(
        part in ("*", word) for word, part in zip(path, pattern, strict=True)
    )


def _syntax_error(file: Path, error: yaml.MarkedYAMLError) -> UserError:
    mark = error.problem_mark or error.context_mark
    what = " ".join(part for part in (error.context, error.problem) if part)
    return UserError(
        f"this is not YAML: {what}", file=file, line=None if mark is None else mark.line + 1
    )


class _Builder:
    """Turns YAML's nodes into values."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.open: set[int] = set()

    def where(self, node: yaml.Node) -> Where:
        return Where(self.file, node.start_mark.line + 1)

    def build(self, node: yaml.Node) -> Marked:
        if id(node) in self.open:
            raise self.where(node).error("this alias leads back to itself")
        self.open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node)
            if isinstance(node, yaml.SequenceNode):
                return self.sequence(node)
            return self.scalar(node)
        finally:
            self.open.discard(id(node))

    def mapping(self, node: yaml.MappingNode) -> MarkedDict:
        self.check_tag(node, "map")
        result = MarkedDict(self.where(node))
        for key_node, value_node in node.value:
            key = self.key(key_node)
            if key in result:
                raise self.where(key_node).error(
                    f"the key `{key}` is here twice",
                    f"the first is in line {result.key_at[key].line}; keep one of them",
                )
            result[key] = self.build(value_node)
            result.key_at[key] = self.where(key_node)
            result.value_at[key] = self.where(value_node)
        return result

    def sequence(self, node: yaml.SequenceNode) -> MarkedList:
        self.check_tag(node, "seq")
        result = MarkedList(self.where(node))
        for item in node.value:
            result.append(self.build(item))
            result.value_at.append(self.where(item))
        return result

    def key(self, node: yaml.Node) -> str:
        if isinstance(node, yaml.ScalarNode) and node.tag == TAG + "merge":
            raise self.where(node).error("`<<` is not used here", "write the keys out")
        key = self.build(node)
        if isinstance(key, str):
            return key
        if isinstance(node, yaml.ScalarNode):
            raise self.where(node).error(
                f"the key {node.value} is not a string", f'quote it: "{node.value}"'
            )
        raise self.where(node).error("a key must be a string")

    def scalar(self, node: yaml.Node) -> str | int | bool | None:
        text = str(node.value)
        kind = node.tag.removeprefix(TAG)
        result: str | int | bool | None
        if kind in ("str", "timestamp", "value"):
            result = text
        elif kind == "null":
            result = None
        elif kind == "int" and re.fullmatch(r"0|-?[1-9][0-9]*", text):
            result = int(text)
        elif kind == "bool" and text.lower() in ("true", "false"):
            result = text.lower() == "true"
        else:
            raise self.refuse(node, kind, text)
        return result

    def refuse(self, node: yaml.Node, kind: str, text: str) -> UserError:
        where = self.where(node)
        if kind == "float":
            return where.error(
                f"{text} is a number with a point, and 6.10 would be read as 6.1",
                f'quote the version: "{text}"',
            )
        if kind == "int":
            return where.error(
                f"{text} is a number that YAML reads in a way of its own", f'quote it: "{text}"'
            )
        if kind == "bool":
            return where.error(
                f"{text} is a truth value to YAML", f'write true or false, or quote it: "{text}"'
            )
        return where.error(f"the tag `{node.tag}` is not used here", "write a plain value")

    def check_tag(self, node: yaml.Node, kind: str) -> None:
        if node.tag != TAG + kind:
            raise self.where(node).error(f"the tag `{node.tag}` is not used here")
