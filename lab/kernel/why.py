# SPDX-License-Identifier: GPL-2.0-only
"""Why a symbol did not become what was asked for, in words for people."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from lab.kernel.expression import LEVELS, Expression, Symbol, Y, lacking, level, symbols
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


def explain(
    request: Request,
    *,
    kconfig: Kconfig,
    values: Mapping[str, str],
    requests: Mapping[str, Request],
) -> Miss | None:
    """Say why a request was not met.

    Args:
        values: the final configuration.
        requests: who asked for what, by symbol; tells who turned a dependency off.

    Returns:
        None if the kernel has no such symbol and the request says that this is fine.
    """
    symbol = request.symbol
    became = values.get(symbol, "n")
    blocks = kconfig.definitions.get(symbol)
    if not blocks:
        if request.if_known:
            return None
        near = difflib.get_close_matches(symbol, kconfig.definitions, n=3, cutoff=0.75)
        right = f"did you mean {' or '.join(f'CONFIG_{name}' for name in near)}?" if near else None
        return Miss(request, became, "this kernel has no such symbol", right)
    if request.value in LEVELS and LEVELS.get(became, Y) > LEVELS[request.value]:
        return _too_high(request, became, blocks, kconfig, values)
    return _too_low(request, became, blocks, kconfig, values, requests)


def _too_high(
    request: Request,
    became: str,
    blocks: list[Definition],
    kconfig: Kconfig,
    values: Mapping[str, str],
) -> Miss:
    """Asked n or m, became more: something selects it, or nobody may set it."""
    for select in kconfig.selects.get(request.symbol, ()):
        by = values.get(select.by, "n")
        if min(LEVELS.get(by, 0), level(select.condition, values)) > LEVELS[request.value]:
            return Miss(
                request,
                became,
                f"CONFIG_{select.by}={by} selects it ({select.where})",
                f"turn CONFIG_{select.by} off, or do not ask for this",
            )
    if not any(_can_be_set(block, values) for block in blocks):
        why = f"it cannot be set here and follows its default ({blocks[0].where})"
        return Miss(request, became, why, "do not ask for it")
    if blocks[0].choice is not None:
        return Miss(request, became, f"it is the one chosen of a choice ({blocks[0].where})",
                    "ask for another one of it")
    if kconfig.type_of(request.symbol) == "bool" and request.value == "m":
        return Miss(request, became, f"it cannot be a module ({blocks[0].where})", "ask for y")
    return Miss(request, became, f"see {blocks[0].where}")


def _too_low(
    request: Request,
    became: str,
    blocks: list[Definition],
    kconfig: Kconfig,
    values: Mapping[str, str],
    requests: Mapping[str, Request],
) -> Miss:
    wanted = LEVELS.get(request.value, 1)
    kind = kconfig.type_of(request.symbol)
    if kind and _kind_of(request.value) != KINDS[kind]:
        why = f"it is of type {kind} ({blocks[0].where})"
        return Miss(request, became, why, f"give it {KINDS[kind]}")
    if kind == "bool" and request.value == "m":
        return Miss(request, became, f"it is of type bool ({blocks[0].where})", "ask for y")
    # The definition that lacks least is the one that was meant.
    best = min(blocks, key=lambda block: len(lacking(block.depends, values, wanted=wanted)))
    parts = lacking(best.depends, values, wanted=wanted)
    if parts:
        told = _told(parts, kconfig, values, requests, wanted, DEPTH)
        why = f"it depends on {'; and on '.join(told)} ({best.where})"
        return Miss(request, became, why, _cure(parts, request.value, kconfig))
    if best.choice is not None:
        return _other_chosen(request, became, best, kconfig, values, requests)
    if not _can_be_set(best, values):
        return _unsettable(request, became, best, kconfig)
    return Miss(request, became, f"the value is out of its range ({best.where})")


def _told(
    parts: list[Expression],
    kconfig: Kconfig,
    values: Mapping[str, str],
    requests: Mapping[str, Request],
    wanted: int,
    depth: int,
) -> list[str]:
    """Each unmet dependency once."""
    told = [_dependency(part, kconfig, values, requests, wanted, depth) for part in parts]
    return list(dict.fromkeys(told))


def _dependency(
    part: Expression,
    kconfig: Kconfig,
    values: Mapping[str, str],
    requests: Mapping[str, Request],
    wanted: int,
    depth: int,
) -> str:
    """One unmet dependency: what it is now, and who or what made it so."""
    if not isinstance(part, Symbol):
        return f"{part}, and here {_present(part, values)}"
    name, now = part.name, values.get(part.name, "n")
    text = f"{name}, which is {now}"
    asked = requests.get(name)
    if asked is not None and LEVELS.get(asked.value, Y) < wanted:
        return f"{text} as {asked.file}:{asked.line} asks"
    blocks = kconfig.definitions.get(name)
    if not blocks:
        return f"{text} (this kernel or architecture has no such symbol)"
    parts = lacking(blocks[0].depends, values, wanted=wanted)
    if parts and depth > 1:
        deeper = _told(parts, kconfig, values, requests, wanted, depth - 1)
        return f"{text} because it depends on {' and on '.join(deeper)}"
    if not any(block.prompt for block in blocks):
        selectors = [select.by for select in kconfig.selects.get(name, ())][:3]
        by = f" (selected by {', '.join(selectors)})" if selectors else ""
        return f"{text} and cannot be set by hand{by}"
    return text


def _present(part: Expression, values: Mapping[str, str]) -> str:
    names = dict.fromkeys(symbols(part))
    return ", ".join(f"{name}={values.get(name, 'n')}" for name in names)


def _cure(parts: list[Expression], value: str, kconfig: Kconfig) -> str | None:
    names = dict.fromkeys(part.name for part in parts if isinstance(part, Symbol))
    lines = [
        f"CONFIG_{name}={'m' if value == 'm' and kconfig.type_of(name) == 'tristate' else 'y'}"
        for name in names
    ]
    return f"ask for {' and '.join(lines)} as well" if lines else None


def _kind_of(value: str) -> str:
    if value in LEVELS:
        return KINDS["bool"]
    return KINDS["string"] if value.startswith('"') else KINDS["int"]


def _other_chosen(
    request: Request,
    became: str,
    block: Definition,
    kconfig: Kconfig,
    values: Mapping[str, str],
    requests: Mapping[str, Request],
) -> Miss:
    assert block.choice is not None
    for other in kconfig.choice_members(block.choice):
        if other != request.symbol and values.get(other) == "y":
            asked = requests.get(other)
            by = f", asked for by {asked.file}:{asked.line}" if asked else ""
            why = f"of this choice CONFIG_{other} was taken{by} ({block.where})"
            return Miss(request, became, why, "ask for one of them")
    return Miss(request, became, f"it is one of a choice that is not open ({block.where})")


def _can_be_set(block: Definition, values: Mapping[str, str]) -> bool:
    return block.prompt and level(block.prompt_if, values) > 0


def _unsettable(request: Request, became: str, block: Definition, kconfig: Kconfig) -> Miss:
    selectors = [f"CONFIG_{select.by}" for select in kconfig.selects.get(request.symbol, ())]
    why = f"nobody can set it by hand ({block.where})"
    if block.prompt:
        why = f"it can be set only if {block.prompt_if} ({block.where})"
    right = f"ask for what selects it: {', '.join(selectors[:4])}" if selectors else None
    return Miss(request, became, why, right)
