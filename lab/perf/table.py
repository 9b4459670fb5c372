# SPDX-License-Identifier: GPL-2.0-only
"""What a bench measured, as the table of a page.

The table stands between two comments, by which it is found again::

    <!-- lab bench filter: begin -->
    <!-- lab bench filter: end -->
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from lab.errors import UserError


class Row(BaseModel):
    """One filter with so many sources to drop; guest instructions a packet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filter: str
    sources: int
    dropped: int
    passed: int


class Filters(BaseModel):
    """What tests/bench/test_filter_cost.py says; ``none``: without any filter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kernel: str
    none: int
    rows: tuple[Row, ...]


def markdown(found: Filters) -> str:
    """The table: a row a filter, for each number of sources totals and margins."""
    numbers = sorted({row.sources for row in found.rows})
    heads = [f"{what}, N = {n}" for n in numbers for what in ("dropped", "passed")]
    lines = [
        f"Kernel {found.kernel}; instructions of a packet, and what that is over no filter:",
        "",
        "| filter | " + " | ".join(heads) + " |",
        "|---|" + "---|" * len(heads),
        "| none | " + " | ".join(["", f"{found.none}"] * len(numbers)) + " |",
    ]
    for name, group in groupby(found.rows, key=lambda row: row.filter):
        by_number = {row.sources: row for row in group}
        cells = []
        for number in numbers:
            row = by_number[number]
            cells += [_cell(row.dropped, found.none), _cell(row.passed, found.none)]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(cost: int, none: int) -> str:
    return f"{cost} ({cost - none:+})"


@dataclass(frozen=True)
class Difference:
    """A figure that was not the same twice."""

    what: str
    first: int
    second: int


def differences(first: Filters, second: Filters, *, digits: int = 4) -> list[Difference]:
    """Figures that are not the same to so many digits in two runs of one bench.

    Figures of no more digits than that must be equal.  Longer ones may be less
    than one unit of the last digit apart: 20009 and 20011 are alike, though
    they stand on either side of a border.
    """
    return [
        Difference(what, one, other)
        for (what, one), (_, other) in zip(_figures(first), _figures(second), strict=True)
        if abs(one - other) >= 10 ** max(0, len(str(min(one, other))) - digits)
    ]


def _figures(found: Filters) -> list[tuple[str, int]]:
    figures = [("none", found.none)]
    for row in found.rows:
        name = f"{row.filter}, N = {row.sources}"
        figures += [(f"{name}, dropped", row.dropped), (f"{name}, passed", row.passed)]
    return figures


def write(page: Path, bench: str, found: Filters) -> None:
    """Put the table between its comments.

    Raises:
        UserError: as ``place`` does; or the table there has filters that were not
            measured this time, which would go with it.
    """
    before, there, after = place(page, bench)
    made = markdown(found)
    measured = _names(made)
    if lost := [name for name in _names(there) if name not in measured]:
        raise UserError(
            f"not measured, but in the table: {', '.join(lost)}",
            file=page,
            right="measure a kernel that has them all, or take these rows out first",
        )
    page.write_text(before + made + after, encoding="utf-8")


def _names(table: str) -> list[str]:
    """The first cell of each row."""
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")]
    return rows[1:]


def place(page: Path, bench: str) -> tuple[str, str, str]:
    """What stands before the table, the table, and what follows; the comments are no part of it.

    Raises:
        UserError: the page cannot be read, or has no such comments.
    """
    begin, end = (f"<!-- lab bench {bench}: {word} -->\n" for word in ("begin", "end"))
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the page cannot be read: {error.strerror}", file=page) from None
    except UnicodeDecodeError:
        raise UserError("this is no page: it is not UTF-8 text", file=page) from None
    before, found, rest = text.partition(begin)
    there, closed, after = rest.partition(end)
    if not found or not closed:
        raise UserError(
            "there is no place for the table",
            file=page,
            right=f"put {begin.strip()} and {end.strip()} where it shall stand, a line each",
        )
    return before + begin, there, end + after
