# SPDX-License-Identifier: GPL-2.0-only
"""Just enough of Lua's lexer to find assertions in a test file.

An *assertion site* is a place in the text where ``assert`` is called, or one
of the suite's helpers whose name starts with ``check``: ``checkerror``,
``checkmessage``, ``checksyntax``. Comments and strings hold none, and neither
does the line that defines a helper.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_SKIP = re.compile(r"\s+|--\[(=*)\[.*?\]\1\]|--[^\n]*", re.DOTALL)
_TOKEN = re.compile(
    r"""
      (?P<name>[A-Za-z_]\w*)
    | (?P<string>\[(?P<level>=*)\[.*?\](?P=level)\]
        | "(?:\\z\s*|\\.|[^"\\\n])*" | '(?:\\z\s*|\\.|[^'\\\n])*')
    | (?P<number>0[xX](?:[pP][+-]?|[0-9a-fA-F.])+
        | (?:\d|\.\d)(?:[eE][+-]?|[0-9.])*)
    | (?P<operator>\.\.\.|\.\.|==|~=|<=|>=|<<|>>|//|::|.)
    """,
    re.DOTALL | re.VERBOSE,
)


@dataclass(frozen=True)
class Token:
    kind: str
    """``name``, ``string``, ``number`` or ``operator``."""
    text: str
    line: int
    """Where it starts, from 1."""


def tokens(text: str) -> Iterator[Token]:
    """Yield the tokens of `text`; what Lua refuses comes out as operators."""
    position, line = (0, 1)
    if text.startswith("#"):
        position = text.find("\n") if "\n" in text else len(text)
    while position < len(text):
        match = _SKIP.match(text, position)
        if match is None:
            match = _TOKEN.match(text, position)
            assert match is not None  # the operator takes any character
            kind = match.lastgroup if match.lastgroup != "level" else "string"
            yield Token(kind=kind or "operator", text=match.group(), line=line)
        line += match.group().count("\n")
        position = match.end()


def assertion_lines(text: str) -> list[int]:
    """The line of each assertion site in `text`, in order."""
    sites = []
    before = ""
    found = list(tokens(text))
    for token, after in pairwise(found):
        called = after.kind == "string" or after.text in ("(", "{")
        if _asserts(token) and called and before != "function":
            sites.append(token.line)
        before = token.text
    return sites


def _asserts(token: Token) -> bool:
    return token.kind == "name" and (token.text == "assert" or token.text.startswith("check"))
