# SPDX-License-Identifier: GPL-2.0-only
"""Why a symbol did not become what was asked for, in words for people."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from lab.kernel.expression import (
    LEVELS,
    Expression,
    N,
    Symbol,
    Values,
    Y,
    lacking,
    level,
    symbols,
)
from lab.kernel.fragment import Request
from lab.kernel.kconfig import Definition, Kconfig

KINDS = {
    "bool": "y, m or n",
    "tristate": "y, m or n",
    "string": 'a "quoted string"',
    "int": "a number",
    "hex": "a number",
}

DEPTH = 3
"""How many dependencies of dependencies are worth telling."""


@dataclass(frozen=True)
class Miss:
    """A request that was not met.

    Attributes:
        became: the value that it has now; n if it has none.
        why: the reason, a clause.
        right: what would be right.
    """

    request: Request
    became: str
    why: str
    right: str | None = None

    @property
    def what(self) -> str:
        """The whole of it but for file and line."""
        return (
            f"CONFIG_{self.request.symbol}={self.request.value} was asked for "
            f"and became {self.became}: {self.why}"
        )

    def __str__(self) -> str:
        where = f"{self.request.file}:{self.request.line}: {self.what}"
        return where + (f"; {self.right}" if self.right else "")


class Explainer:
    """Finds reasons.

    Args:
        values: the final configuration.
        requests: who asked for what; tells who turned a dependency off.
    """

    def __init__(self, kconfig: Kconfig, values: Values, requests: Iterable[Request]) -> None:
        self.kconfig = kconfig
        self.values = values
        self.requests: Mapping[str, Request] = {request.symbol: request for request in requests}

    def explain(self, request: Request) -> Miss | None:
        """Say why a request was not met.

        Returns:
            None if the kernel has no such symbol and the request says that this is fine.
        """
        blocks = self.kconfig.definitions.get(request.symbol)
        if not blocks:
            return None if request.if_known else self._unknown(request)
        kind = self.kconfig.type_of(request.symbol)
        if kind and _kind_of(request.value) != KINDS[kind]:
            return self._miss(request, f"it is of type {kind}", f"give it {KINDS[kind]}", blocks[0])
        if kind == "bool" and request.value == "m":
            return self._miss(request, "it is of type bool", "ask for y", blocks[0])
        if request.value in LEVELS and self._now(request.symbol) > LEVELS[request.value]:
            return self._too_high(request, blocks)
        return self._too_low(request, blocks)

    def _now(self, symbol: str) -> int:
        return LEVELS.get(self.values.get(symbol, "n"), Y)

    def _miss(
        self, request: Request, why: str, right: str | None, block: Definition | None = None
    ) -> Miss:
        became = self.values.get(request.symbol, "n")
        return Miss(request, became, why + (f" ({block.where})" if block else ""), right)

    def _unknown(self, request: Request) -> Miss:
        known = self.kconfig.definitions
        near = difflib.get_close_matches(request.symbol, known, n=3, cutoff=0.75)
        right = f"did you mean {' or '.join(f'CONFIG_{name}' for name in near)}?" if near else None
        return self._miss(request, "this kernel has no such symbol", right)

    def _too_high(self, request: Request, blocks: list[Definition]) -> Miss:
        """Something selects it, it is the chosen one, or nobody may set it."""
        for select in self.kconfig.selects.get(request.symbol, ()):
            by = self.values.get(select.by, "n")
            reaches = min(LEVELS.get(by, N), level(select.condition, self.values))
            if reaches > LEVELS[request.value]:
                why = f"CONFIG_{select.by}={by} selects it ({select.where})"
                right = f"turn CONFIG_{select.by} off, or do not ask for this"
                return self._miss(request, why, right)
        if not any(self._can_be_set(block) for block in blocks):
            why = "it cannot be set here and follows its default"
            return self._miss(request, why, "do not ask for it", blocks[0])
        if blocks[0].choice is not None:
            why = "it is the one chosen of a choice"
            return self._miss(request, why, "ask for another one of it", blocks[0])
        return self._miss(request, "nothing that the lab knows of does this", None, blocks[0])

    def _too_low(self, request: Request, blocks: list[Definition]) -> Miss:
        wanted = LEVELS.get(request.value, 1)
        # The definition that lacks least is the one that was meant.
        best = min(blocks, key=lambda block: len(self._lacking(block, wanted)))
        parts = self._lacking(best, wanted)
        if parts:
            why = f"it depends on {'; and on '.join(self._told(parts, wanted, DEPTH))}"
            return self._miss(request, why, self._cure(parts, request.value), best)
        if best.choice is not None:
            return self._other_chosen(request, best)
        if not self._can_be_set(best):
            return self._unsettable(request, best)
        return self._miss(request, "the value is out of its range", None, best)

    def _lacking(self, block: Definition, wanted: int) -> list[Expression]:
        return lacking(block.depends, self.values, wanted=wanted)

    def _told(self, parts: list[Expression], wanted: int, depth: int) -> list[str]:
        """Each unmet dependency once."""
        return list(dict.fromkeys(self._dependency(part, wanted, depth) for part in parts))

    def _dependency(self, part: Expression, wanted: int, depth: int) -> str:
        """One unmet dependency: what it is now, and who or what made it so."""
        if not isinstance(part, Symbol):
            names = dict.fromkeys(symbols(part))
            now = ", ".join(f"{name}={self.values.get(name, 'n')}" for name in names)
            return f"{part}, and here {now}"
        text = f"{part.name}, which is {self.values.get(part.name, 'n')}"
        asked = self.requests.get(part.name)
        if asked is not None and LEVELS.get(asked.value, Y) < wanted:
            return f"{text} as {asked.file}:{asked.line} asks"
        blocks = self.kconfig.definitions.get(part.name)
        if not blocks:
            return f"{text} (this kernel or architecture has no such symbol)"
        parts = self._lacking(blocks[0], wanted)
        if parts and depth > 1:
            deeper = self._told(parts, wanted, depth - 1)
            return f"{text} because it depends on {' and on '.join(deeper)}"
        if not any(block.prompt for block in blocks):
            return f"{text} and cannot be set by hand{self._selectors(part.name)}"
        return text

    def _selectors(self, symbol: str) -> str:
        names = [select.by for select in self.kconfig.selects.get(symbol, ())][:3]
        return f" (selected by {', '.join(names)})" if names else ""

    def _cure(self, parts: list[Expression], value: str) -> str | None:
        names = dict.fromkeys(part.name for part in parts if isinstance(part, Symbol))
        lines = []
        for name in names:
            as_module = value == "m" and self.kconfig.type_of(name) == "tristate"
            lines.append(f"CONFIG_{name}={'m' if as_module else 'y'}")
        return f"ask for {' and '.join(lines)} as well" if lines else None

    def _other_chosen(self, request: Request, block: Definition) -> Miss:
        assert block.choice is not None
        for other in self.kconfig.choice_members(block.choice):
            if other != request.symbol and self.values.get(other) == "y":
                asked = self.requests.get(other)
                by = f", asked for by {asked.file}:{asked.line}" if asked else ""
                why = f"of this choice CONFIG_{other} was taken{by}"
                return self._miss(request, why, "ask for one of them", block)
        return self._miss(request, "it is one of a choice that is not open", None, block)

    def _can_be_set(self, block: Definition) -> bool:
        return block.prompt and level(block.prompt_if, self.values) > N

    def _unsettable(self, request: Request, block: Definition) -> Miss:
        why = "nobody can set it by hand"
        if block.prompt:
            why = f"it can be set only if {block.prompt_if}"
        names = [f"CONFIG_{select.by}" for select in self.kconfig.selects.get(request.symbol, ())]
        right = f"ask for what selects it: {', '.join(names[:4])}" if names else None
        return self._miss(request, why, right, block)


def _kind_of(value: str) -> str:
    if value in LEVELS:
        return KINDS["bool"]
    return KINDS["string"] if value.startswith('"') else KINDS["int"]
