# SPDX-License-Identifier: GPL-2.0-only
"""Leases: no number of workers overcommits the host, and nobody waits for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.testing.lease import Leases, charge


def leases(tmp_path: Path) -> Leases:
    return Leases(tmp_path / "leases.json", memory=1000, cores=2)


def take(ledger: Leases, holder: str, memory: int = 100, cores: int = 1) -> str:
    return ledger.take(holder=holder, memory=memory, cores=cores, timeout=0)


def test_memory_is_never_overcommitted(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    take(ledger, "a", memory=600)
    with pytest.raises(HostError, match="600 of 1000 MiB are leased"):
        take(ledger, "b", memory=500)
    with pytest.raises(HostError):
        take(ledger, "a", memory=500)


def test_more_than_the_host_has_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="wants 2000 MiB"):
        leases(tmp_path).take(holder="a", memory=2000, cores=1, timeout=60)


def test_a_test_that_wants_more_than_the_host_has_in_all_is_refused_at_once(
    tmp_path: Path,
) -> None:
    ledger = leases(tmp_path)
    take(ledger, "a", memory=600)
    with pytest.raises(HostError, match="want 1200 MiB together, the host gives 1000 MiB"):
        ledger.take(holder="a", memory=600, cores=1, timeout=60)
    assert [lease.memory for lease in ledger.held()] == [600]
    take(ledger, "a", memory=400)


@contextmanager
def waiting(ledger: Leases, holder: str, memory: int, cores: int = 1) -> Iterator[list[str]]:
    """Somebody waits for a lease within the block, and has it after it."""
    had: list[str] = []
    waiter = threading.Thread(
        target=lambda: had.append(
            ledger.take(holder=holder, memory=memory, cores=cores, timeout=20)
        )
    )
    queue = ledger._path
    there = queue.read_text().count(f'"{holder}/')
    waiter.start()
    deadline = time.monotonic() + 10
    while queue.read_text().count(f'"{holder}/') == there:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        yield had
    finally:
        waiter.join(timeout=25)
    assert len(had) == 1


@pytest.mark.parametrize("up", [0, 300], ids=["", "beside lab up"])
def test_the_last_of_those_that_wait_for_each_other_gives_way(tmp_path: Path, up: int) -> None:
    ledger = leases(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        if up:
            ledger.hand_over(take(ledger, "up", memory=up, cores=0), other.pid)
        first = take(ledger, "a", memory=400 - up // 2)
        second = take(ledger, "b", memory=400 - up // 2, cores=0)
        with waiting(Leases(ledger._path, memory=1000, cores=2), "a", 300):
            began = time.monotonic()
            with pytest.raises(HostError, match="all tests that have machines wait"):
                ledger.take(holder="b", memory=300, cores=0, timeout=15)
            assert time.monotonic() - began < 10
            # The first still waits, and has room once the last has ended.
            ledger.give_back(second)
        ledger.give_back(first)
        other.kill()


def test_who_has_nothing_may_wait_for_those_that_wait(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    first, second = take(ledger, "a", memory=500), take(ledger, "b", memory=300, cores=0)
    with waiting(leases(tmp_path), "a", 300):
        with pytest.raises(HostError, match=r"within 0\.2 s"):
            ledger.take(holder="c", memory=300, cores=0, timeout=0.2)
        ledger.give_back(second)
    ledger.give_back(first)


def test_nobody_gives_way_where_somebody_still_works(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    small = take(ledger, "works", memory=100, cores=0)
    take(ledger, "a", memory=400)
    take(ledger, "b", memory=400, cores=0)
    with waiting(leases(tmp_path), "a", 200):
        with pytest.raises(HostError, match=r"within 0\.3 s"):
            ledger.take(holder="b", memory=200, cores=0, timeout=0.3)
        ledger.give_back(small)


def test_who_waits_for_memory_gives_way_to_who_waits_for_cores(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    take(ledger, "shared", memory=500, cores=0)
    cores = take(ledger, "other", memory=0, cores=2)
    with waiting(leases(tmp_path), "shared", 0):
        with pytest.raises(HostError, match="all tests that have machines wait"):
            ledger.take(holder="other", memory=600, cores=0, timeout=15)
        ledger.give_back(cores)


def test_cores_are_for_other_tests_only(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    for _ in range(5):
        take(ledger, "a")
    with pytest.raises(HostError):
        take(ledger, "b")


def test_a_big_one_gets_its_turn_when_it_is_alone(tmp_path: Path) -> None:
    take(leases(tmp_path), "a", cores=16)


def test_given_back_is_free_again_and_waiting_ends(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    first = take(ledger, "a", memory=1000)
    timer = threading.Timer(0.2, ledger.give_back, [first])
    timer.start()
    began = time.monotonic()
    leases(tmp_path).take(holder="b", memory=1000, cores=1, timeout=10)
    assert time.monotonic() - began >= 0.15
    timer.join()


def test_who_waits_for_long_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lab.testing.lease.SILENCE", 0.2)
    said: list[str] = []
    ledger = Leases(tmp_path / "leases.json", memory=1000, cores=2, say=said.append)
    ledger.take(holder="a", memory=600, cores=1)
    with pytest.raises(HostError, match=r"within 0\.1 s"):
        ledger.take(holder="b", memory=500, cores=1, timeout=0.1)
    assert said == []
    with pytest.raises(HostError, match=r"within 0\.6 s"):
        ledger.take(holder="b", memory=500, cores=1, timeout=0.6)
    assert said == [
        "waiting for room for a machine of 500 MiB: 1 of 2 cores and 600 of 1000 MiB "
        f"are leased by process {os.getpid()}"
    ]


#: Takes a lease of 900 MiB and stays until its input ends.
HOLDER = """
import sys
from pathlib import Path
from lab.testing.lease import Leases
Leases(Path(sys.argv[1]), memory=1000, cores=2).take(holder="x", memory=900, cores=2, timeout=0)
print("has it", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("reaped", [True, False], ids=["gone", "zombie"])
def test_the_dead_hold_nothing(tmp_path: Path, reaped: bool) -> None:
    file = tmp_path / "leases.json"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"has it\n"
        with pytest.raises(HostError, match="900 of 1000 MiB are leased"):
            take(leases(tmp_path), "a", memory=900)
        other.kill()
        # Where nobody waits for it, as in many a container, it stays as a zombie.
        os.waitid(os.P_PID, other.pid, os.WEXITED | (0 if reaped else os.WNOWAIT))
        take(leases(tmp_path), "a", memory=900)
    assert [lease["pid"] for lease in json.loads(file.read_text())] == [os.getpid()]


def test_a_lease_handed_over_ends_with_its_new_owner(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    lease = take(ledger, "up", memory=900, cores=0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        ledger.hand_over(lease, other.pid)
        assert [(held.pid, held.memory) for held in ledger.held()] == [(other.pid, 900)]
        with pytest.raises(HostError, match=f"leased by process {other.pid}"):
            take(ledger, "a", memory=900)
        other.kill()
    take(ledger, "a", memory=900)


def test_who_wants_no_cores_does_not_wait_for_who_does(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    take(ledger, "a")
    waiting = threading.Thread(
        target=lambda: ledger.take(holder="b", memory=100, cores=2, timeout=20)
    )
    waiting.start()
    deadline = time.monotonic() + 10
    while "b/" not in (tmp_path / "leases.json").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    take(leases(tmp_path), "up", cores=0)
    for lease in ledger.held():
        if lease.cores:
            ledger.give_back(lease.id)
    waiting.join(timeout=20)
    assert sum(lease.cores for lease in ledger.held()) == 2


def test_a_torn_ledger_is_begun_anew(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    take(ledger, "a")
    (tmp_path / "leases.json").write_text('[{"id": ')
    take(ledger, "b", memory=1000)


def test_whoever_waits_for_all_cores_is_not_passed_by(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    small = take(ledger, "a")
    other = Leases(tmp_path / "leases.json", memory=1000, cores=2)
    had: list[str] = []
    waiter = threading.Thread(
        target=lambda: had.append(other.take(holder="big", memory=100, cores=2, timeout=20))
    )
    waiter.start()
    deadline = time.monotonic() + 10
    while "big/" not in (tmp_path / "leases.json").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(HostError):
        take(ledger, "late")  # a core is free, and somebody was first
    take(ledger, "a")  # who holds machines already goes on
    for lease in ledger.held():
        ledger.give_back(lease.id)
    waiter.join(timeout=20)
    assert had
    ledger.give_back(small)
    with pytest.raises(HostError):
        take(ledger, "late")
    ledger.give_back(had[0])
    take(ledger, "late")


def test_who_gave_up_waiting_stands_in_nobodys_way(tmp_path: Path) -> None:
    ledger = leases(tmp_path)
    take(ledger, "a")
    with pytest.raises(HostError):
        take(ledger, "big", cores=2)
    take(ledger, "b")


@pytest.mark.parametrize(
    ("memory", "lasting", "measured"),
    [
        # Nine clones in ten, and a machine that is booted for one test: see charge().
        (512, False, 250),
        (1024, False, 190),
        (1024, False, 604),
        # Six tests in a row; there will be more.
        (1024, True, 1175),
    ],
)
def test_what_is_charged_covers_what_was_measured(
    memory: int, lasting: bool, measured: int
) -> None:
    assert measured <= charge(memory, lasting=lasting) <= memory + 256


def test_whoever_has_more_is_charged_more() -> None:
    charges = [charge(memory) for memory in (64, 256, 512, 1024, 4096)]
    assert charges == sorted(set(charges))
