# SPDX-License-Identifier: GPL-2.0-only
"""The table of a bench, and how alike two runs are."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.cli import run
from lab.commands import bench
from lab.errors import InfraError, UserError
from lab.perf.table import Difference, Filters, Row, differences, markdown, write


def filters(*, passed: int = 1500, none: int = 1000) -> Filters:
    return Filters(
        kernel="6.12",
        none=none,
        rows=(
            Row(filter="rules", sources=1, dropped=900, passed=passed),
            Row(filter="rules", sources=100, dropped=5000, passed=6000),
        ),
    )


def test_totals_and_margins() -> None:
    lines = markdown(filters()).splitlines()
    assert lines[2] == (
        "| filter | dropped, N = 1 | passed, N = 1 | dropped, N = 100 | passed, N = 100 |"
    )
    assert lines[4] == "| none |  | 1000 |  | 1000 |"
    assert lines[5] == "| rules | 900 (-100) | 1500 (+500) | 5000 (+4000) | 6000 (+5000) |"


def test_four_digits_are_the_same() -> None:
    for alike in (20009, 20010, 19992):
        assert differences(filters(passed=20001), filters(passed=alike)) == []
    assert differences(filters(passed=3012), filters(passed=3012)) == []
    for first, second in ((3012, 3013), (900, 901), (9999, 10000), (20001, 20011)):
        assert differences(filters(passed=first), filters(passed=second)) == [
            Difference("rules, N = 1, passed", first, second)
        ]
    assert [one.what for one in differences(filters(), filters(none=1001))] == ["none"]


BEGIN, END = "<!-- lab bench filter: begin -->\n", "<!-- lab bench filter: end -->\n"


def test_only_what_is_between_the_comments_is_written(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")
    write(page, "filter", filters())
    assert page.read_text() == f"before\n{BEGIN}{markdown(filters())}{END}after\n"


def test_table_with_fewer_filters_replaces_none(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}{END}")
    more = Row(filter="XDPLua, native", sources=1, dropped=900, passed=1500)
    whole = filters().model_copy(update={"rows": (*filters().rows[:1], more)})
    write(page, "filter", whole)
    with pytest.raises(UserError, match="not measured, but in the table: XDPLua, native"):
        write(page, "filter", filters())
    assert page.read_text() == f"{BEGIN}{markdown(whole)}{END}"


def test_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(UserError, match="no place for the table"):
        write(page, "filter", filters())


def test_bench_that_measured_nothing_is_the_labs_fault(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "_measure", lambda *_: None)
    assert run(["bench", "filter"]) == InfraError.exit_status
    assert "measured nothing" in capsys.readouterr().err


def test_a_page_that_is_not_there_is_told_before_anything_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "none.md"
    assert run(["bench", "filter", "--write", str(page)]) == UserError.exit_status
    assert f"{page}: the page cannot be read" in capsys.readouterr().err


def test_unknown_bench_is_the_users_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "coffee"]) == UserError.exit_status
    assert "no bench is called 'coffee'; there is filter" in capsys.readouterr().err
