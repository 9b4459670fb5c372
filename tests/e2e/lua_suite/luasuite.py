# SPDX-License-Identifier: GPL-2.0-only
"""The official test suite of Lua, made ready for the kernel.

``cuts.yaml`` says what does not run there and why. It is applied line by line
and by rule, so that line numbers stay and the report counts what was left out.

    python tests/e2e/lua_suite/luasuite.py

prints what runs and what is cut, by file and class.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from luatext import assertion_lines

HERE = Path(__file__).parent
CLASSES = ("float", "os-or-files", "c-test-library", "c-stack", "bytecode", "memory")

#: What no Lua in the kernel could run, whatever its quality.
OUTSIDE = ("float", "os-or-files", "c-test-library")

#: Required by other files, no tests of their own.
SUPPORT = ("bwcoercion", "tracegc")

_EXPONENT = re.compile(r"(?<![\w.])(\d+)[eE](\d+)(?![\w.])")
_POWER = re.compile(r"(?<![\w.)\]^])2\^(\d+)(?![\w.^])")
_POINT = re.compile(r"(?<![\w.])(\d+)\.0(?![\w.])")
_FUNCTION = re.compile(r"math\.(?:sin|cos)\b")


@dataclass(frozen=True)
class Plan:
    """What to do with one file of the suite."""

    whole: str = ""
    """The class by which nothing of it runs."""
    cut: Mapping[str, tuple[range, ...]] = field(default_factory=dict)
    """Lines left out, by class."""
    instead: Mapping[int, str] = field(default_factory=dict)
    """Lines that say something else."""
    integers: tuple[int, ...] = ()
    """Lines whose numerals are respelled."""
    coroutine: int = 0
    """How often the coroutine is resumed that the file runs in; 0: in none."""
    softirq: bool = False

    def why_cut(self, line: int) -> str | None:
        """The class by which a line is cut, None if it is not."""
        if self.whole:
            return self.whole
        for name, ranges in self.cut.items():
            if any(line in lines for lines in ranges):
                return name
        return None


def load_plans(path: Path = HERE / "cuts.yaml") -> dict[str, Plan]:
    """Read the data file: a plan for each file of the suite that it names.

    Errors: ValueError, if it holds what no plan has.
    """
    files = yaml.safe_load(path.read_text())["files"]
    return {name: _plan(name, data or {}) for name, data in files.items()}


def _plan(name: str, data: Mapping[str, object]) -> Plan:
    unknown = set(data) - {"whole", "cut", "instead", "integers", "coroutine", "softirq"}
    whole = str(data.get("whole", ""))
    cut = data.get("cut", {})
    if unknown or not isinstance(cut, dict) or {*cut, whole} - {*CLASSES, ""}:
        raise ValueError(f"{name}: no such key or class: {sorted(unknown) or [*cut, whole]}")
    if whole and len(data) > 1:
        raise ValueError(f"{name}: nothing of it runs, so nothing else can be said of it")
    ranges = {key: tuple(map(_range, value)) for key, value in cut.items()}
    return Plan(
        whole=whole,
        cut=ranges,
        instead=dict(data.get("instead", {})),  # type: ignore[call-overload]
        integers=tuple(data.get("integers", ())),  # type: ignore[arg-type]
        coroutine=int(data.get("coroutine", 0)),  # type: ignore[call-overload]
        softirq=bool(data.get("softirq", False)),
    )


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def respell(line: str) -> str:
    """Spell the integers that a line writes as floats as integers."""
    line = _EXPONENT.sub(lambda m: str(int(m[1]) * 10 ** int(m[2])), line)
    line = _POWER.sub(r"(1 << \1)", line)
    line = _POINT.sub(r"\1", line)
    line = line.replace("math.huge", "math.maxinteger")
    return _FUNCTION.sub("math.abs", line)


def prepare(text: str, plan: Plan, *, suite: Path, softirq: bool = False) -> str:
    """What the kernel gets for a file of the suite with that text.

    Args:
        suite: the directory testes/ of the pinned source.
        softirq: the chunk only returns a function that runs the file.
    """
    lines = text.split("\n")
    if lines[0].startswith("#"):
        lines[0] = ""
    for number in plan.integers:
        lines[number - 1] = respell(lines[number - 1])
    for number, instead in plan.instead.items():
        lines[number - 1] = instead
    for ranges in plan.cut.values():
        for number in (number for lines_cut in ranges for number in lines_cut):
            lines[number - 1] = ""
    if plan.coroutine:
        lines[0] = "local body = coroutine.wrap(function () "
        lines.append(" end) " + "body() " * plan.coroutine)
    elif lines[0].startswith("--"):
        lines[0] = ""
    if softirq:
        # What the file returns could not leave its runtime.
        lines[0] = "return function () (function () " + lines[0]
        lines.append("end)() end")
    lines[0] = _prelude(suite) + " " + lines[0]
    return "\n".join(lines)


def _prelude(suite: Path) -> str:
    support = ", ".join(
        f"{name} = {_quote((suite / f'{name}.lua').read_bytes())}" for name in SUPPORT
    )
    lines = (HERE / "prelude.lua").read_text().split("\n")
    code = " ".join(line.strip() for line in lines if not line.startswith("--"))
    return code.replace("SUPPORT", "{" + support + "}")


def _quote(data: bytes) -> str:
    return '"' + "".join(f"\\{byte:03d}" for byte in data) + '"'


def count(text: str, plan: Plan) -> Counter[str]:
    """Assertion sites of a file: how many run, how many are cut by class."""
    return Counter(plan.why_cut(line) or "run" for line in assertion_lines(text))


def share_run(total: Counter[str]) -> float:
    """Of the sites that a kernel could run, the part that does: 0 to 1."""
    possible = sum(total.values()) - sum(total[name] for name in OUTSIDE)
    return total["run"] / possible if possible else 1.0


def table(counts: Mapping[str, Counter[str]]) -> str:
    """The counts as a table for people."""
    heads = ("run", *CLASSES)
    rows = [f"{'file':16}" + "".join(f"{head:>15}" for head in heads)]
    total: Counter[str] = Counter()
    for name, counted in counts.items():
        total += counted
        rows.append(f"{name:16}" + "".join(f"{counted[head]:>15}" for head in heads))
    rows.append(f"{'total':16}" + "".join(f"{total[head]:>15}" for head in heads))
    rows.append(f"of those outside {', '.join(OUTSIDE)}: {share_run(total):.1%} run")
    return "\n".join(rows)


def counts_of(suite: Path) -> dict[str, Counter[str]]:
    """What runs and what is cut, of each file of the suite.

    Errors: ValueError, if it has a file that neither has a plan nor is required
    by those that have: nothing would run it.
    """
    plans = load_plans() | dict.fromkeys((f"{name}.lua" for name in SUPPORT), Plan())
    files = sorted(suite.glob("*.lua"))
    if strangers := [path.name for path in files if path.name not in plans]:
        raise ValueError(f"no plan for {', '.join(strangers)}")
    return {
        path.name: count(path.read_text(encoding="latin-1"), plans[path.name]) for path in files
    }


def _main() -> None:
    from lab import manifest
    from lab.manifest import ROOT
    from lab.sources.lua import fetch_lua
    from lab.store import Store

    version, spec = next(iter(manifest.read().lua.items()))
    lua = fetch_lua(version, spec, lock=ROOT / "lab.lock", store=Store())
    print(table(counts_of(lua.path / "testes")))


if __name__ == "__main__":
    _main()
