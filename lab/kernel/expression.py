# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig's three-valued expressions: parsed, evaluated, and asked what they lack."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

N, M, Y = 0, 1, 2
LEVELS = {"n": N, "m": M, "y": Y}

_TOKEN = re.compile(r"""\s*(&&|\|\||!=|<=|>=|[!()=<>]|"(?:[^"\\]|\\.)*"|'[^']*'|\w[\w.-]*)""")


@dataclass(frozen=True)
class Symbol:
    """A symbol's own value."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Constant:
    """y, m, n, a number or a quoted string."""

    value: str

    def __str__(self) -> str:
        return self.value if self.value in LEVELS else f'"{self.value}"'


@dataclass(frozen=True)
class Macro:
    """``$(...)``: what the toolchain is asked; its answer is not known here."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Not:
    """The opposite."""

    inner: Expression

    def __str__(self) -> str:
        inner = f"({self.inner})" if isinstance(self.inner, And | Or) else str(self.inner)
        return f"!{inner}"


@dataclass(frozen=True)
class And:
    """The lower of both."""

    left: Expression
    right: Expression

    def __str__(self) -> str:
        sides = (f"({s})" if isinstance(s, Or) else str(s) for s in (self.left, self.right))
        return " && ".join(sides)


@dataclass(frozen=True)
class Or:
    """The higher of both."""

    left: Expression
    right: Expression

    def __str__(self) -> str:
        return f"{self.left} || {self.right}"


@dataclass(frozen=True)
class Compare:
    """A comparison, y or n."""

    operator: str
    left: Symbol | Constant | Macro
    right: Symbol | Constant | Macro

    def __str__(self) -> str:
        return f"{self.left}{self.operator}{self.right}"


Expression: TypeAlias = "Symbol | Constant | Macro | Not | And | Or | Compare"
Values: TypeAlias = Mapping[str, str]
"""Symbol -> value as in a .config; what is not there is n."""


def both(left: Expression | None, right: Expression | None) -> Expression | None:
    """``left && right``, where None is y."""
    if left is None or right is None:
        return left if right is None else right
    return And(left, right)


def parse(text: str) -> Expression | None:
    """An expression; None if the text is none (or uses what we do not know)."""
    tokens = _tokens(text)
    if tokens is None:
        return None
    try:
        expression = _or(tokens)
    except (IndexError, ValueError):
        return None
    return None if tokens else expression


def level(expression: Expression | None, values: Values) -> int:  # noqa: PLR0911
    """N, M or Y.  A macro counts as Y: the benefit of the doubt."""
    match expression:
        case None | Macro():
            return Y
        case Symbol(name):
            return LEVELS.get(values.get(name, "n"), N)
        case Constant(value):
            return LEVELS.get(value, N)
        case Not(inner):
            return Y - level(inner, values)
        case And(left, right):
            return min(level(left, values), level(right, values))
        case Or(left, right):
            return max(level(left, values), level(right, values))
        case Compare():
            return Y if _holds(expression, values) else N


def lacking(expression: Expression | None, values: Values, *, wanted: int = Y) -> list[Expression]:
    """The smallest parts that all have to reach ``wanted`` and do not."""
    if expression is None or level(expression, values) >= wanted:
        return []
    if isinstance(expression, And):
        return [
            part
            for side in (expression.left, expression.right)
            for part in lacking(side, values, wanted=wanted)
        ]
    return [expression]


def symbols(expression: Expression | None) -> list[str]:
    """Every symbol in it, in order."""
    match expression:
        case Symbol(name):
            return [name]
        case Not(inner):
            return symbols(inner)
        case And(left, right) | Or(left, right) | Compare(_, left, right):
            return symbols(left) + symbols(right)
    return []


def _holds(compare: Compare, values: Values) -> bool:
    left, right = (_text(side, values) for side in (compare.left, compare.right))
    if left is None or right is None:
        return True
    match compare.operator:
        case "=":
            return left == right
        case "!=":
            return left != right
    try:
        one, two = int(left, 0), int(right, 0)
    except ValueError:
        return False
    return {"<": one < two, ">": one > two, "<=": one <= two, ">=": one >= two}[compare.operator]


def _text(side: Symbol | Constant | Macro, values: Values) -> str | None:
    match side:
        case Symbol(name):
            return values.get(name, "n").strip('"')
        case Constant(value):
            return value
    return None


def _tokens(text: str) -> list[str] | None:
    """Tokens with macros whole (they nest and hold anything)."""
    found: list[str] = []
    position = 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        if text.startswith("$(", position):
            end = _macro_end(text, position)
            if end is None:
                return None
            found.append(text[position:end])
            position = end
            continue
        token = _TOKEN.match(text, position)
        if token is None:
            return None
        found.append(token[1])
        position = token.end()
    return found


def _macro_end(text: str, start: int) -> int | None:
    depth = 0
    for position in range(start + 1, len(text)):
        depth += {"(": 1, ")": -1}.get(text[position], 0)
        if depth == 0:
            return position + 1
    return None


def _or(tokens: list[str]) -> Expression:
    left = _and(tokens)
    while tokens and tokens[0] == "||":
        tokens.pop(0)
        left = Or(left, _and(tokens))
    return left


def _and(tokens: list[str]) -> Expression:
    left = _unary(tokens)
    while tokens and tokens[0] == "&&":
        tokens.pop(0)
        left = And(left, _unary(tokens))
    return left


def _unary(tokens: list[str]) -> Expression:
    token = tokens.pop(0)
    if token == "!":
        return Not(_unary(tokens))
    if token == "(":
        inner = _or(tokens)
        if tokens.pop(0) != ")":
            raise ValueError(token)
        return inner
    left = _atom(token)
    if tokens and tokens[0] in ("=", "!=", "<", ">", "<=", ">="):
        return Compare(tokens.pop(0), left, _atom(tokens.pop(0)))
    return left


def _atom(token: str) -> Symbol | Constant | Macro:
    if token.startswith("$("):
        return Macro(token)
    if token[0] in "\"'":
        inner = token[1:-1]
        return Macro(inner) if inner.startswith("$(") else Constant(inner)
    if token in LEVELS or re.fullmatch(r"-?\d+|0[xX][0-9a-fA-F]+", token):
        return Constant(token)
    if not re.fullmatch(r"\w+", token):
        raise ValueError(token)
    return Symbol(token)
