# SPDX-License-Identifier: GPL-2.0-only
"""Following consoles: who said it, in which phase, and what is excused."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.watch import follow
from lab.watch.follow import Watch, objection

SPLAT = "[    {time}.0] BUG: scheduling while atomic: {who}/1/0x2\n"


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch(kernel="6.12.1", flavour="default")
    yield watch
    watch.close()


def test_blames_node_and_phase(tmp_path: Path, watch: Watch) -> None:
    alice, bob = tmp_path / "alice", tmp_path / "bob"
    watch.follow("alice", alice)
    watch.follow("bob", bob)
    alice.write_text(SPLAT.format(time=1, who="a"))
    watch.enter("test")
    bob.write_text(SPLAT.format(time=2, who="b"))
    watch.finish()
    seen = {(s.node, s.phase, s.event.title) for s in watch.sightings}
    assert seen == {
        ("alice", "setup", "BUG: scheduling while atomic: a/1/0x2"),
        ("bob", "test", "BUG: scheduling while atomic: b/1/0x2"),
    }


def test_a_line_that_comes_in_pieces_is_one_line(tmp_path: Path, watch: Watch) -> None:
    log = tmp_path / "log"
    watch.follow("node", log)
    with log.open("w") as file:
        for piece in ("[    1.0] BUG: sche", "duling while", " atomic: x\n"):
            file.write(piece)
            file.flush()
            watch.poll()
    watch.finish()
    assert [s.event.kind for s in watch.sightings] == ["atomic-schedule"]


def test_starts_at_the_given_byte(tmp_path: Path, watch: Watch) -> None:
    log = tmp_path / "log"
    old = SPLAT.format(time=1, who="old")
    log.write_text(old)
    watch.follow("node", log, offset=len(old))
    watch.finish()
    assert watch.sightings == ()


def test_a_log_that_is_written_anew_is_read_anew(tmp_path: Path, watch: Watch) -> None:
    """As by a cold boot in the place of a clone that failed."""
    log = tmp_path / "log"
    log.write_text("[    1.0] a line of the clone's\n" * 20)
    watch.follow("node", log)
    watch.poll()
    log.write_text(SPLAT.format(time=1, who="anew"))
    watch.finish()
    assert [s.event.title for s in watch.sightings] == ["BUG: scheduling while atomic: anew/1/0x2"]


def test_whoever_goes_on_misses_nothing_and_gets_nothing_twice(
    tmp_path: Path, watch: Watch
) -> None:
    log = tmp_path / "log"
    first, second = (SPLAT.format(time=10 * number, who=number) for number in (1, 2))
    log.write_text(first + second[:15])
    watch.follow("node", log)
    watch.finish()
    offset = watch.leave("node")
    log.write_text(first + second)
    watch.finish()
    assert len(watch.sightings) == 1, "left is left"
    other = Watch(kernel="6.12.1", flavour="debug")
    other.follow("node", log, offset=offset)
    other.finish()
    assert [s.event.title for s in other.sightings] == ["BUG: scheduling while atomic: 2/1/0x2"]


def test_noise_is_kept_and_excused(tmp_path: Path, watch: Watch) -> None:
    log = tmp_path / "log"
    watch.follow("node", log)
    log.write_text("[    1.0] Kernel panic - not syncing: sysrq triggered crash\n")
    watch.finish()
    assert [s.counts for s in watch.sightings] == [False]
    assert watch.sightings[0].noise


def test_own_marks_stand_in_no_report(tmp_path: Path, watch: Watch) -> None:
    log = tmp_path / "log"
    watch.follow("node", log)
    log.write_text(SPLAT.format(time=1, who="x") + f"[    1.1] {follow.MARK}0123\n")
    assert watch.wait_for("node", f"{follow.MARK}0123", timeout=0)
    watch.finish()
    assert follow.MARK not in watch.sightings[0].event.text


def test_flood_is_bounded_and_its_end_is_read(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "FLOOD", 1 << 20)
    log = tmp_path / "log"
    watch.follow("node", log)
    line = "[    1.0] nothing to see\n"
    log.write_text(line * ((4 << 20) // len(line)) + SPLAT.format(time=2, who="end"))
    watch.finish()
    assert watch.flooded("node")
    assert [s.event.kind for s in watch.sightings] == ["atomic-schedule"]


def test_a_report_has_the_moment_at_which_it_came(tmp_path: Path, watch: Watch) -> None:
    """Nobody polls while a test waits for something, yet its splats are seen then."""
    log = tmp_path / "log"
    watch.follow("node", log)
    log.write_text(SPLAT.format(time=1, who="x") + "[    1.0] ---[ end trace 0 ]---\n")
    deadline = time.monotonic() + 5
    while not watch.sightings and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [s.event.kind for s in watch.sightings] == ["atomic-schedule"]


def test_a_flood_in_small_pieces_is_one(
    tmp_path: Path, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "FLOOD", 1 << 16)
    log = tmp_path / "log"
    watch.follow("node", log)
    with log.open("a") as file:
        for _ in range(20):
            print("[    1.0] nothing to see\n" * 200, end="", file=file, flush=True)
            watch.poll()
    assert watch.flooded("node")


def test_missing_log_is_no_error(tmp_path: Path, watch: Watch) -> None:
    watch.follow("node", tmp_path / "later")
    watch.finish()
    assert watch.sightings == ()


def test_objection_to_freezing() -> None:
    log = "[    1.0] all is well\n"
    assert objection(log, kernel="6.12.1", flavour="default") is None
    reason = objection(log + SPLAT.format(time=2, who="x"), kernel="6.12.1", flavour="default")
    assert reason is not None
    assert "scheduling while atomic" in reason
