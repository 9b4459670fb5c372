# SPDX-License-Identifier: GPL-2.0-only
"""What is cut of Lua's test suite is cut by rule, and counted."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "e2e" / "lua_suite"))

from luasuite import Plan, count, counts_of, load_plans, prepare, respell, share_run
from luatext import assertion_lines

TEXT = """-- a comment: assert(no)
local s = "assert(no)" .. [[ assert(no) ]]
assert(1 == 1)
local function checkerror (f) assert(not pcall(f)) end
checkerror(print); assert "x"
--[==[ assert(no)
]==] assert{}
"""


@pytest.fixture
def support(tmp_path: Path) -> Path:
    for name in ("bwcoercion", "tracegc"):
        (tmp_path / f"{name}.lua").write_text(f'return "{name}"\n')
    return tmp_path


def test_assertions_in_comments_and_strings_are_none() -> None:
    assert assertion_lines(TEXT) == [3, 4, 5, 5, 7]


def test_sites_are_counted_by_class() -> None:
    plan = Plan(cut={"float": (range(3, 4),), "c-stack": (range(5, 6),)})
    assert count(TEXT, plan) == Counter(run=2, float=1, **{"c-stack": 2})


def test_nothing_of_a_whole_file_runs() -> None:
    assert count(TEXT, Plan(whole="memory")) == Counter(memory=5)


def test_what_no_test_would_run_does_not_count(support: Path) -> None:
    (support / "new.lua").write_text("assert(true)\n")
    with pytest.raises(ValueError, match=r"no plan for new\.lua"):
        counts_of(support)


def test_share_leaves_out_what_no_kernel_could_run() -> None:
    assert share_run(Counter({"run": 9, "c-stack": 1, "float": 90})) == 0.9


def test_lines_keep_their_numbers(support: Path) -> None:
    plan = Plan(cut={"float": (range(3, 5),)}, instead={5: "print(5)"})
    lines = prepare(TEXT, plan, suite=support).split("\n")
    assert lines[1] == TEXT.split("\n")[1]
    assert lines[2:5] == ["", "", "print(5)"]
    assert len(lines) == len(TEXT.split("\n"))


@pytest.mark.parametrize(
    ("line", "integers"),
    [
        ("for i = 1, 1e3 do", "for i = 1, 1000 do"),
        ("x = 2^10 + y", "x = (1 << 10) + y"),
        ("x = 3.0", "x = 3"),
        ("x = 3.5", "x = 3.5"),
        ("x = a2^10", "x = a2^10"),
        ("x = 0x1e3", "x = 0x1e3"),
        ("for i = 1, math.huge do", "for i = 1, math.maxinteger do"),
    ],
)
def test_integers_are_respelled(line: str, integers: str) -> None:
    assert respell(line) == integers


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ('cut:\n      lazy: ["1-2"]', "lazy"),
        ("whole: lazy", "lazy"),
        ("whole: memory\n    softirq: true", "nothing of it runs"),
    ],
)
def test_what_no_plan_has_is_refused(tmp_path: Path, plan: str, message: str) -> None:
    data = tmp_path / "cuts.yaml"
    data.write_text(f"files:\n  a.lua:\n    {plan}\n")
    with pytest.raises(ValueError, match=message):
        load_plans(data)


def test_the_data_file_is_sound() -> None:
    plans = load_plans()
    assert len(plans) > 25
    for name, plan in plans.items():
        seen: set[int] = set()
        for ranges in plan.cut.values():
            for lines in ranges:
                assert lines and not seen & set(lines), name
                seen |= set(lines)
        assert not seen & {*plan.instead, *plan.integers}, name
