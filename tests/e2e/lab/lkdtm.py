# SPDX-License-Identifier: GPL-2.0-only
"""What each crash type of LKDTM must look like (lkdtm.yaml), read by kernel and flavour.

Run as a program it prints docs/lkdtm.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

TABLE = Path(__file__).with_name("lkdtm.yaml")

#: Where all of it was run.
SEEN = (("6.1", "default"), ("6.12", "default"), ("6.12", "debug"), ("7.3", "default"))

#: Of a type's kinds, those with which the kernel says nothing and goes on.
SILENCE = frozenset({"endless"})

HEAD = """\
# What the lab makes of each crash

LKDTM, the kernel's own module for it, crashes a kernel on purpose in {count} ways.
Each is done to a pristine machine beside a bystander; the lab must name the kind
below, blame the right test, node and phase, and let the neighbours pass
(`./run e2e -- --flavour all tests/e2e/lab/test_lkdtm.py`). Kinds are explained in
`lab/kernel/configs/splats.yaml`; several are whichever detector is first. This
table is printed by `tests/e2e/lab/lkdtm.py` from `lkdtm.yaml` beside it.

- `hang`: the kernel says nothing any more, and the lab says so in its place.
- `endless`: the kernel has nothing to say, but the command does not end.
- silent: the kernel does not report it; why stands below.
- absent: this kernel does not offer it.

"""


def read() -> dict[str, Any]:
    """All of lkdtm.yaml."""
    table: dict[str, Any] = yaml.safe_load(TABLE.read_text())
    return table


def types_of(table: Mapping[str, Any], line: str) -> dict[str, dict[str, Any]]:
    """Group -> type -> entry, of what a kernel line offers."""
    absent = set(table["absent"][line])
    return {
        group: {name: entry for name, entry in types.items() if name not in absent}
        for group, types in table["types"].items()
    }


def wanted(entry: Any, line: str, flavour: str) -> tuple[frozenset[str], str]:
    """(kinds that the report may have, reason to be silent): one of them is empty."""
    if isinstance(entry, Mapping) and "silent" not in entry:
        names = (f"{line}-{flavour}", line, flavour, "default")
        entry = next(entry[name] for name in names if name in entry)
    if isinstance(entry, Mapping):
        return frozenset(), str(entry["silent"])
    return frozenset(str(entry).split("|")), ""


def page() -> str:
    """docs/lkdtm.md."""
    table = read()
    rows, reasons = list(_head()), []
    count = 0
    for types in table["types"].values():
        for name, entry in types.items():
            count += 1
            rows.append(_row(table, name, entry))
            reasons += _reasons(table, name, entry)
    why = ["", "Silent:", "", *reasons]
    return HEAD.format(count=count) + "\n".join([*rows, *why]) + "\n"


def _head() -> Iterator[str]:
    yield "| type | " + " | ".join(f"{line} {flavour}" for line, flavour in SEEN) + " |"
    yield "|---" * (len(SEEN) + 1) + "|"


def _row(table: Mapping[str, Any], name: str, entry: Any) -> str:
    cells = [f"`{name}`"]
    for line, flavour in SEEN:
        kinds = wanted(entry, line, flavour)[0]
        absent = name in table["absent"][line]
        cells.append("absent" if absent else ", ".join(sorted(kinds)) or "silent")
    return "| " + " | ".join(cells) + " |"


def _reasons(table: Mapping[str, Any], name: str, entry: Any) -> Iterator[str]:
    found: dict[str, list[str]] = {}
    for line, flavour in SEEN:
        kinds, why = wanted(entry, line, flavour)
        if not kinds and name not in table["absent"][line]:
            found.setdefault(why, []).append(f"{line} {flavour}")
    for why, where in found.items():
        everywhere = len(where) == len(SEEN)
        yield f"- `{name}`" + ("" if everywhere else f" ({', '.join(where)})") + f": {why}"


if __name__ == "__main__":
    print(page(), end="")
