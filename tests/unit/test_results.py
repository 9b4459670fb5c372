# SPDX-License-Identifier: GPL-2.0-only
"""What a run leaves behind: statuses, exit, junit.xml, run.json, latest."""

from __future__ import annotations

import os
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lab import cli
from lab.errors import HostError, InfraError, UserError
from lab.results.merge import load_cell_result, load_run, merge, new_run
from lab.results.record import (
    CellResult,
    HostFacts,
    KernelFacts,
    Patch,
    Splat,
    Status,
    TestResult,
    exit_status,
    summary,
)
from lab.testing import stages

CODES: dict[Status, int] = {"passed": 0, "failed": 1, "skipped": 0, "kernel": 1, "infra": 4}


def result(status: Status, *, name: str = "test_x", code: int | None = None) -> TestResult:
    splats: tuple[Splat, ...] = ()
    if status == "kernel":
        splats = (
            Splat(node="m", phase="test", when=0.5, time=3.0, kind="bug", severity="splat",
                  title="kernel BUG at a.c:1!", fingerprint="abc", text="the \x1b[31mreport"),
        )  # fmt: skip
    return TestResult(
        id=f"tests/e2e/netfilter/test_hook.py::{name}", status=status,
        exit=CODES[status] if code is None else code, duration=1.5,
        message=f"why {status}", detail="detail \x00 <&>", splats=splats,
    )  # fmt: skip


def cell(*tests: TestResult, name: str = "6.12-default-1", message: str = "") -> CellResult:
    return CellResult(
        name=name,
        kernel=KernelFacts(name="6.12", version="6.12.117", flavour="default", key="k",
                           patches=(Patch(name="a.patch", sha256="0" * 64),)),
        modules_key="m", modules={"lunatik.ko": "1" * 64}, image_key="i",
        provider="qemu", accel="tcg", workers=0,
        host=HostFacts(system="Linux", python="3", qemu="QEMU 7.2", cpus=2, memory=1024),
        started=0.0, seconds=2.0, exit=exit_status(tests) if not message else 4,
        message=message, tests=tests,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        (["passed"], 0),
        (["passed", "skipped"], 0),
        ([], 2),
        (["skipped", "skipped"], 2),
        (["passed", "failed"], 1),
        (["passed", "kernel"], 1),
        (["failed", "infra"], 4),
    ],
)
def test_exit_status(statuses: list[Status], expected: int) -> None:
    assert exit_status(result(status) for status in statuses) == expected


def test_the_highest_exit_status_wins() -> None:
    assert exit_status([result("infra", code=3), result("failed")]) == 3
    assert exit_status([result("infra", code=3), result("infra")]) == 4


def test_summary_reads_like_pytests() -> None:
    tests = [result("passed"), result("passed"), result("kernel")]
    assert summary(tests, seconds=3.21) == "1 kernel, 2 passed in 3.21s"


def test_subsystem_is_the_folder() -> None:
    assert result("passed").subsystem == "netfilter"
    assert TestResult(id="x/test_a.py::t", status="passed", exit=0, duration=0).subsystem == "x"


def test_merge_writes_it_all_and_points_latest(tmp_path: Path) -> None:
    for _ in range(2):
        directory = new_run(tmp_path)
        merge(directory, [cell(result("passed"))], command=["lab", "test"], started=0.0)
    assert {"run.json", "junit.xml", "report.html"} <= {p.name for p in directory.iterdir()}
    assert (tmp_path / "latest").resolve() == directory
    assert not (tmp_path / "latest").readlink().is_absolute()
    run = load_run(tmp_path / "latest" / "run.json")
    assert run.exit == 0
    assert run.cells[0].kernel.patches[0].name == "a.patch"
    assert run.cells[0].modules == {"lunatik.ko": "1" * 64}
    assert run.cells[0].tests[0].duration == 1.5


def test_a_directory_called_latest_costs_no_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest/mine").touch()
    directory = new_run(tmp_path)
    run = merge(directory, [cell(result("passed"))], command=["lab"], started=0)
    assert run.exit == 0
    assert "no link but a directory" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"latest", directory.name}
    assert (tmp_path / "latest/mine").exists()


def test_an_empty_shard_is_no_failure_but_a_broken_cell_is(tmp_path: Path) -> None:
    good = merge(new_run(tmp_path), [cell(result("passed")), cell(name="2")], command=[], started=0)
    assert good.exit == 0
    bad = merge(
        new_run(tmp_path), [cell(result("passed")), cell(name="2", message="died")],
        command=[], started=0,
    )  # fmt: skip
    assert bad.exit == 4


def test_two_runs_at_once_get_two_directories(tmp_path: Path) -> None:
    assert len({new_run(tmp_path) for _ in range(5)}) == 5


@pytest.mark.parametrize("kind", ["file", "below", "dangling"])
def test_no_place_for_results(tmp_path: Path, kind: str) -> None:
    there = tmp_path / "there"
    if kind == "dangling":  # once asked for again and again, for ever
        there.symlink_to(tmp_path / "gone" / "results")
    else:
        there.touch()
    with pytest.raises(UserError, match="no directory") as caught:
        new_run(there / "results" if kind == "below" else there)
    assert caught.value.file == there


def test_results_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(HostError, match="cannot be written"):
        new_run(tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_place_for_results_is_seen_to_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def build(*_: object) -> None:
        raise AssertionError("nothing is to be built")

    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "store"))
    monkeypatch.setattr(stages, "build", build)
    (tmp_path / "file").touch()
    assert cli.run(["test", "--results", str(tmp_path / "file"), "tests/e2e/smoke"]) == 2
    assert "no directory" in capsys.readouterr().err


def test_junit_has_a_suite_for_each_cell_and_tells_statuses_apart(tmp_path: Path) -> None:
    tests = [result(status, name=f"test_{status}") for status in CODES]
    directory = new_run(tmp_path)
    merge(directory, [cell(*tests), cell(result("passed"), name="b")], command=[], started=0)
    root = ElementTree.parse(directory / "junit.xml").getroot()
    assert root is not None
    suites = {suite.get("name"): suite for suite in root.iter("testsuite")}
    assert set(suites) == {"6.12-default-1", "b"}
    cases = {case.get("name"): case for case in suites["6.12-default-1"].iter("testcase")}
    kernel, infra = cases["test_kernel"].find("failure"), cases["test_infra"].find("error")
    failed = cases["test_failed"].find("failure")
    assert kernel is not None and infra is not None and failed is not None
    assert kernel.get("type") == "kernel"
    assert "report" in (kernel.text or "")
    assert failed.get("type") == "failed"
    assert cases["test_skipped"].find("skipped") is not None
    assert list(cases["test_passed"]) == []
    assert suites["6.12-default-1"].get("failures") == "2"


def test_a_broken_cell_is_an_error_in_junit(tmp_path: Path) -> None:
    directory = new_run(tmp_path)
    merge(directory, [cell(message="pytest was ended by signal 9")], command=[], started=0)
    assert "signal 9" in (directory / "junit.xml").read_text()


def test_results_that_are_missing_or_torn(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="left no results"):
        load_cell_result(tmp_path / "results.json")
    for torn in (b'{"name": ', b'{"name": "\xff'):
        (tmp_path / "results.json").write_bytes(torn)
        with pytest.raises(InfraError, match="left no results"):
            load_cell_result(tmp_path / "results.json")
        with pytest.raises(InfraError, match="not the results"):
            load_run(tmp_path / "results.json")
