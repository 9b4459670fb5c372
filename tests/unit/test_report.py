# SPDX-License-Identifier: GPL-2.0-only
"""report.html: opens from disk, failures first, nothing from a network, nothing unescaped."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from lab.results import drawing
from lab.results.record import (
    CellResult,
    HostFacts,
    KernelFacts,
    Mark,
    Node,
    RunResult,
    Splat,
    TestResult,
)
from lab.results.report import write_report

SPLAT = Splat(
    node="alice",
    phase="test",
    when=0.7,
    time=3.0,
    kind="kasan",
    severity="splat",
    title="BUG: KASAN: <b>",
    fingerprint="abcdef012345",
    stack=("f+0x1/0x2",),
    text="KASAN <script>",
)


def report(tmp_path: Path, *, logs: str = "nodes/bad/alice", bad: int = 1) -> str:
    tests: tuple[TestResult, ...] = (
        TestResult(id="tests/e2e/a/test_a.py::test_good", status="passed", exit=0, duration=1),
        TestResult(
            id="tests/e2e/b/test_b.py::test_bad", status="kernel", exit=1, duration=2,
            message="alice: <boom>", splats=(SPLAT,),
            marks=(Mark(when=0, what="setup"), Mark(when=0.1, node="alice", what="ready")),
            nodes=(Node(name="alice", directory=logs),),
            bundle="cells/c/bundles/bad",
            topology={"nodes": ["alice", "bob"],
                      "links": [{"name": "wire", "nodes": ["alice", "bob"]}]},
        ),
    )  # fmt: skip
    tests += tuple(tests[1].model_copy(update={"id": f"{tests[1].id}[{i}]"}) for i in range(1, bad))
    cell = CellResult(
        name="c",
        kernel=KernelFacts(name="6.12", version="6.12.1", flavour="default", key="k",
                           compiler="gcc 12.2.0"),
        modules_key=None, modules={}, image_key="i", provider="qemu", accel="tcg", workers=0,
        host=HostFacts(system="", python="", qemu="", cpus=1, memory=1),
        started=0, seconds=3, exit=1, tests=tests,
    )  # fmt: skip
    node = tmp_path / "cells" / "c" / "nodes" / "bad" / "alice"
    node.mkdir(parents=True)
    (node / "console.log").write_text("the <console> says")
    (node.parent / "alice-wire-1.pcap").touch()
    bundle = tmp_path / "cells" / "c" / "bundles" / "bad"
    bundle.mkdir(parents=True)
    (bundle / "stacks.txt").touch()
    run = RunResult(run="r", command=("lab", "test"), started=0, seconds=3, exit=1, cells=(cell,))
    write_report(run, tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def test_needs_no_network(tmp_path: Path) -> None:
    text = report(tmp_path)
    assert not re.search(r"(src|href)=[\"'](https?:)?//", text)
    assert "@import" not in text
    assert "url(" not in text


def test_can_be_opened_where_every_test_failed(tmp_path: Path) -> None:
    text = report(tmp_path, bad=100)
    assert text.count("alice: console.log") == 100  # linked
    assert text.count("the &lt;console&gt; says") == 30


def test_the_command_that_it_shows_can_be_typed(tmp_path: Path) -> None:
    shown = re.search(r"<code>lab replay (\S+)</code>", report(tmp_path))
    assert shown is not None
    assert Path(shown[1]).is_dir()


def test_the_compiler_is_told(tmp_path: Path) -> None:
    assert "gcc 12.2.0" in report(tmp_path)


def test_failures_come_first(tmp_path: Path) -> None:
    text = report(tmp_path)
    assert text.index("test_bad") < text.index("test_good")


def test_what_guests_say_is_escaped(tmp_path: Path) -> None:
    text = report(tmp_path)
    assert "KASAN <script>" not in text
    assert "KASAN &lt;script&gt;" in text
    assert "the &lt;console&gt; says" in text
    assert "alice: &lt;boom&gt;" in text


def test_links_lead_to_files_beside_it(tmp_path: Path) -> None:
    links = re.findall(r'href="([^"]+)"', report(tmp_path))
    assert "cells/c/nodes/bad/alice/console.log" in links
    assert "cells/c/nodes/bad/alice-wire-1.pcap" in links
    assert "cells/c/bundles/bad/stacks.txt" in links
    assert all((tmp_path / link).exists() for link in links)


def test_a_machine_may_have_its_logs_anywhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "console.log").write_text("said there")
    text = report(tmp_path / "run", logs=str(elsewhere))
    assert f'href="{(elsewhere / "console.log").as_uri()}"' in text


def test_can_be_filtered_by_status_and_subsystem(tmp_path: Path) -> None:
    text = report(tmp_path)
    assert 'data-value="kernel"' in text
    assert 'data-value="b"' in text
    assert 'data-status="kernel" data-subsystem="b"' in text


def test_draws_topology_and_time_line(tmp_path: Path) -> None:
    text = report(tmp_path)
    assert text.count('class="node"') == 4  # a box and a name for each of two
    assert 'class="splat"><title>0.700 s BUG: KASAN: &lt;b&gt;' in text


def test_drawings_of_nothing_are_empty() -> None:
    assert drawing.topology({}) == ""
    assert drawing.time_line(TestResult(id="t", status="passed", exit=0, duration=0)) == ""


def test_a_lan_is_a_dot_with_many_lines() -> None:
    nodes = [f"n{i}" for i in range(5)]
    svg = drawing.topology({"nodes": nodes, "links": [{"name": "lan", "nodes": nodes}]})
    assert svg.count("<line") == 5
    assert svg.count('class="lan"') == 1


@pytest.mark.parametrize("total", range(2, 17))
def test_no_box_is_drawn_over_another_or_over_the_edge(total: int) -> None:
    svg = drawing.topology({"nodes": [f"n{i}" for i in range(total)]})
    size = float(re.findall(r'<svg viewBox="0 0 (\d+) ', svg)[0])
    found = re.findall(r'<rect x="(-?\d+)" y="(-?\d+)" width="(\d+)" height="(\d+)"', svg)
    boxes = [tuple(map(int, box)) for box in found]
    assert len(boxes) == total
    for x, y, wide, high in boxes:
        assert 0 <= x <= size - wide
        assert 0 <= y <= size - high
    for (ax, ay, wide, high), (bx, by, _, _) in itertools.combinations(boxes, 2):
        assert abs(ax - bx) >= wide or abs(ay - by) >= high
