# SPDX-License-Identifier: GPL-2.0-only
"""Several kernels in one run: what stands is tested while the rest is built."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.errors import HostError, InfraError, KernelError, LabError, UserError
from lab.testing import aside
from lab.testing.matrix import Outcome, bring


@dataclass(frozen=True)
class Stage:
    name: str


@dataclass
class Yard:
    """Builds words out of stages, and remembers in what order and by whom."""

    ready: set[str] = field(default_factory=set)
    broken: dict[str, LabError] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def is_ready(self, stage: Stage) -> bool:
        return stage.name in self.ready

    def build(self, stage: Stage) -> str:
        self.told.append(f"build {stage.name}")
        self.fail(stage)
        return stage.name.upper()

    def aside(self, stage: Stage, stop: threading.Event) -> None:
        self.told.append(f"aside {stage.name}")
        while not self.gate.is_set():
            if stop.wait(0.01):
                self.told.append(f"stopped {stage.name}")
                return
        self.fail(stage)
        self.ready.add(stage.name)

    def fail(self, stage: Stage) -> None:
        if stage.name in self.broken:
            raise self.broken[stage.name]

    def bring(self, *names: str) -> Iterator[list[Outcome[Stage, str]]]:
        return bring(
            [Stage(name) for name in names],
            is_ready=self.is_ready,
            build=self.build,
            aside=self.aside,
        )


def said(batch: list[Outcome[Stage, str]]) -> list[str]:
    return [one.built or f"{one.stage.name}: {one.error}" for one in batch]


def flat(batches: Iterator[list[Outcome[Stage, str]]]) -> list[str]:
    return [text for batch in batches for text in said(batch)]


def test_what_the_store_has_comes_at_once_and_together() -> None:
    yard = Yard(ready={"a", "b"})
    assert [said(batch) for batch in yard.bring("a", "b")] == [["A", "B"]]
    assert yard.told == ["build a", "build b"]


def test_the_rest_is_built_while_the_first_is_tested() -> None:
    yard = Yard(ready={"b"})
    batches = yard.bring("a", "b", "c")
    assert said(next(batches)) == ["B"]
    for _ in range(200):  # the thread begins by itself
        if "aside a" in yard.told:
            break
        time.sleep(0.01)
    assert "aside a" in yard.told
    assert "build a" not in yard.told
    yard.gate.set()
    assert sorted(flat(batches)) == ["A", "C"]
    assert yard.told.index("aside a") < yard.told.index("aside c")


def test_with_nothing_to_test_the_first_is_built_by_ourselves() -> None:
    yard = Yard()
    yard.gate.set()
    batches = yard.bring("a", "b")
    assert said(next(batches)) == ["A"]
    assert yard.told[0] == "build a"
    assert flat(batches) == ["B"]
    assert "aside b" in yard.told


@pytest.mark.parametrize("ready", [set(), {"b"}, {"a", "b", "c"}])
@pytest.mark.parametrize("broken", ["a", "b", "c"])
def test_a_build_that_fails_takes_nobody_with_it(ready: set[str], broken: str) -> None:
    yard = Yard(ready=ready, broken={broken: KernelError("does not compile")})
    yard.gate.set()
    expected = {"A", "B", "C"} - {broken.upper()} | {f"{broken}: does not compile"}
    assert set(flat(yard.bring("a", "b", "c"))) == expected


def test_all_of_them_may_fail() -> None:
    yard = Yard(broken={name: UserError("no such symbol") for name in "ab"})
    assert flat(yard.bring("a", "b")) == ["a: no such symbol", "b: no such symbol"]


def test_a_configuration_that_cannot_be_had_fails_its_own_stage() -> None:
    yard = Yard(ready={"b"})
    is_ready = yard.is_ready

    def picky(stage: Stage) -> bool:
        if stage.name == "a":
            raise UserError("CONFIG_X is off")
        return is_ready(stage)

    yard.is_ready = picky  # type: ignore[method-assign]
    assert flat(yard.bring("a", "b")) == ["a: CONFIG_X is off", "B"]


def test_a_fault_of_the_thread_is_told_not_waited_for() -> None:
    yard = Yard(ready={"a"}, broken={"b": ValueError("odd")})  # type: ignore[dict-item]
    yard.gate.set()
    assert flat(yard.bring("a", "b")) == ["A", "b: ValueError: odd"]


def test_whoever_stops_asking_stops_the_build() -> None:
    yard = Yard(ready={"a"})
    batches = yard.bring("a", "b", "c")
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    assert "aside c" not in yard.told
    assert not any(thread.name == "builder" for thread in threading.enumerate())


# The process beside the tests


@pytest.mark.parametrize(
    ("status", "kind"), [(1, KernelError), (2, UserError), (3, HostError), (4, InfraError)]
)
def test_a_builds_error_keeps_its_kind(tmp_path: Path, status: int, kind: type[LabError]) -> None:
    log = tmp_path / "6.1-default.log"
    text = "build 6.1 default: 10 of 90\nlab: a.c:3: `x` undeclared\n  it is\n"
    error = aside.error_of(status, text, log)
    assert type(error) is kind
    assert str(error) == f"a.c:3: `x` undeclared\n  it is; all it said: {log}"


def test_a_build_that_was_killed_says_so(tmp_path: Path) -> None:
    assert "signal 9" in str(aside.error_of(-9, "build: 1 of 2", tmp_path / "log"))


def test_a_stopped_build_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child, log = tmp_path / "child", tmp_path / "builds" / "log"
    script = f"import os,subprocess; p=subprocess.Popen(['sleep','60']); " \
             f"open({str(child)!r},'w').write(f'{{p.pid}}\\n'); p.wait()"  # fmt: skip
    fake = tmp_path / "python"
    fake.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{script}"\n')
    fake.chmod(0o755)
    monkeypatch.setattr(aside.sys, "executable", str(fake))
    stop = threading.Event()
    thread = threading.Thread(target=aside._run, args=(["modules"], log, stop))
    thread.start()
    deadline = time.monotonic() + 20
    while not (child.exists() and child.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    stop.set()
    thread.join(20)
    assert not thread.is_alive()
    number = int(child.read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(100):
            os.kill(number, signal.SIGCONT)
            time.sleep(0.02)
