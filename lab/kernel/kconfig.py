# SPDX-License-Identifier: GPL-2.0-only
"""What a kernel's Kconfig files say about its symbols.

The kernel's own ``conf`` decides what a configuration becomes; it does not
say why.  This reads the same files for the why alone: where a symbol is
defined, what it depends on, what selects it, which choice it belongs to.
(kconfiglib, which did this and more, stopped at 14.1.0 in 2019 and does not
read the ``modules`` and ``transitional`` of newer kernels.)
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lab.kernel.expression import Expression, both, parse

TYPES = ("bool", "tristate", "string", "int", "hex")


@dataclass
class Definition:
    """One ``config NAME`` block (a symbol may have several).

    Attributes:
        file: relative to the tree.
        depends: its own dependencies and those of all that encloses it; None is y.
        prompt: it can be set at all; else it only follows its defaults.
        prompt_if: the condition of its prompt.
        choice: the choice that it is a member of.
    """

    symbol: str
    file: str
    line: int
    depends: Expression | None = None
    type: str = ""
    prompt: bool = False
    prompt_if: Expression | None = None
    choice: int | None = None

    @property
    def where(self) -> str:
        """``lib/Kconfig.debug:2163``."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True)
class Select:
    """``select TARGET if CONDITION`` in the block of ``by``."""

    by: str
    condition: Expression | None
    where: str


@dataclass
class Kconfig:
    """All symbols of one tree for one architecture."""

    definitions: dict[str, list[Definition]] = field(default_factory=dict)
    selects: dict[str, list[Select]] = field(default_factory=dict)

    def type_of(self, symbol: str) -> str:
        """One of "bool", "tristate", "string", "int", "hex"; empty if there is none."""
        for definition in self.definitions.get(symbol, ()):
            if definition.type:
                return definition.type
        return ""

    def choice_members(self, choice: int) -> list[str]:
        """The symbols of a choice."""
        return [
            symbol
            for symbol, blocks in self.definitions.items()
            if any(block.choice == choice for block in blocks)
        ]


def read_kconfig(tree: Path, *, arch: str = "x86") -> Kconfig:
    """Read ``Kconfig`` and every file that it sources.  Takes a second or two."""
    reader = _Reader(tree, arch)
    reader.read("Kconfig")
    return reader.kconfig


@dataclass
class _Block:
    """An enclosing if, menu or choice."""

    kind: str
    depends: Expression | None = None
    choice: int | None = None


class _Reader:
    """Walks the files in order, with the stack of what encloses the present line."""

    def __init__(self, tree: Path, arch: str) -> None:
        self.tree = tree
        self.variables = {"SRCARCH": arch, "srctree": str(tree), "HEADER_ARCH": arch, "ARCH": arch}
        self.kconfig = Kconfig()
        self.blocks: list[_Block] = []
        self.choices = 0
        self.current: Definition | None = None
        # "depends on" after menu, choice or comment belongs to that, not to a symbol.
        self.owner: Definition | _Block | None = None

    def read(self, name: str) -> None:
        path = self.tree / name
        try:
            text = path.read_text(errors="replace")
        except OSError:
            return
        for number, line in _statements(text):
            self.statement(line, file=name, number=number)

    def statement(self, line: str, *, file: str, number: int) -> None:
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word in ("config", "menuconfig"):
            self._open_config(rest, file=file, number=number)
        elif word == "if":
            self._push(_Block("if", parse(rest)))
        elif word == "menu":
            self._push(_Block("menu"))
        elif word == "choice":
            self.choices += 1
            self._push(_Block("choice", choice=self.choices))
        elif word in ("endif", "endmenu", "endchoice"):
            self.owner = self.current = None
            if self.blocks:
                self.blocks.pop()
        elif word == "comment":
            self.owner = self.current = None
        elif word == "source":
            self.owner = self.current = None
            self.read(self._expand(rest.strip('"')))
        else:
            self._property(word, rest, where=f"{file}:{number}")

    def _open_config(self, symbol: str, *, file: str, number: int) -> None:
        definition = Definition(symbol=symbol, file=file, line=number)
        for block in self.blocks:
            definition.depends = both(definition.depends, block.depends)
            definition.choice = block.choice if block.kind == "choice" else definition.choice
        self.kconfig.definitions.setdefault(symbol, []).append(definition)
        self.owner = self.current = definition

    def _push(self, block: _Block) -> None:
        self.blocks.append(block)
        self.current = None
        self.owner = block if block.kind != "if" else None

    def _property(self, word: str, rest: str, *, where: str) -> None:
        if word == "depends":
            if self.owner is not None:
                condition = parse(rest.removeprefix("on").strip())
                self.owner.depends = both(self.owner.depends, condition)
        elif self.current is not None:
            self._symbol_property(self.current, word, rest, where=where)

    def _symbol_property(self, definition: Definition, word: str, rest: str, *, where: str) -> None:
        if word in TYPES or word == "prompt":
            definition.type = definition.type or (word if word in TYPES else "")
            if rest[:1] in ('"', "'"):
                definition.prompt = True
                definition.prompt_if = _condition(rest)
        elif word in ("def_bool", "def_tristate"):
            definition.type = word.removeprefix("def_")
        elif word == "select":
            target, _, _ = rest.partition(" ")
            select = Select(definition.symbol, _condition(rest), where)
            self.kconfig.selects.setdefault(target, []).append(select)

    def _expand(self, text: str) -> str:
        expanded = re.sub(r"\$\((\w+)\)", lambda m: self.variables.get(m[1], m[0]), text)
        return expanded.removeprefix(f"{self.tree}/")


def _condition(rest: str) -> Expression | None:
    """The expression after `` if ``, outside of quotes."""
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', lambda m: " " * len(m[0]), rest)
    found = re.search(r"\bif\b", bare)
    return parse(rest[found.end() :]) if found else None


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with their numbers: continued lines joined, help texts and comments gone."""
    lines = text.expandtabs(8).split("\n")
    index = 0
    while index < len(lines):
        number, line = index + 1, lines[index]
        while line.endswith("\\") and index + 1 < len(lines):
            index += 1
            line = line[:-1] + lines[index]
        index += 1
        line = _uncommented(line).strip()
        if line in ("help", "---help---"):
            index = _after_help(lines, index)
        elif line:
            yield number, re.sub(r"\s+", " ", line) if '"' not in line else line


def _uncommented(line: str) -> str:
    if "#" not in line:
        return line
    found = re.match(r"""((?:[^#"']|"(?:[^"\\]|\\.)*"|'[^']*')*)#""", line)
    return found[1] if found else line


def _after_help(lines: list[str], index: int) -> int:
    """The line after a help text, which ends where the indentation falls below its first line's."""
    while index < len(lines) and not lines[index].strip():
        index += 1
    if index == len(lines):
        return index
    indent = len(lines[index]) - len(lines[index].lstrip())
    if indent == 0:
        return index
    while index < len(lines):
        line = lines[index]
        if line.strip() and len(line) - len(line.lstrip()) < indent:
            return index
        index += 1
    return index
