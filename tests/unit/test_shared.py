# SPDX-License-Identifier: GPL-2.0-only
"""One machine for all tests: what it takes to get it is nobody's time and nobody else's room."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from lab.errors import HostError
from lab.testing import limit as limits
from lab.testing.lease import Leases
from lab.testing.limit import Limit
from lab.testing.shared import SharedMachine
from lab.testing.verdict import TestOverLimit


class Slow:
    """A provider whose machines take a while to boot, or never do."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def start(self, spec: Any, directory: Path) -> Any:
        """Boot."""
        time.sleep(0.4)
        if self.error:
            raise self.error
        return SimpleNamespace(name=spec.name, directory=directory, body=SimpleNamespace(stop=int))


def shared(tmp_path: Path, cold: Slow, *, cores: int = 1) -> SharedMachine:
    rig = SimpleNamespace(spec=lambda name: SimpleNamespace(name=name, memory=64, cpus=1))
    leases = Leases(tmp_path / "leases.json", memory=10_000, cores=cores)
    owner: Any = SimpleNamespace(
        rig=rig, provider=cold, cold=cold, leases=leases, directory=tmp_path
    )
    return SharedMachine(owner)


def trial(limit: Limit | None = None) -> Any:
    return SimpleNamespace(limit=limit, borrow=Mock())


def test_its_boot_does_not_count_against_the_first_test(tmp_path: Path) -> None:
    machine = shared(tmp_path, Slow())
    with Limit(0.2, lambda: None) as limit:
        assert machine.lend(trial(limit)).name == "shared"
    assert not limit.passed


def test_one_that_cannot_boot_gives_its_room_back(tmp_path: Path) -> None:
    machine = shared(tmp_path, Slow(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        machine.lend(trial())
    assert Leases(tmp_path / "leases.json").held() == ()


def end(tmp_path: Path, ended: Any) -> None:
    """What a trial does with its lease."""
    Leases(tmp_path / "leases.json").give_back(ended.borrow.call_args.kwargs["lease"])


def test_two_of_them_are_not_one_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_GRACE", 0.1)
    one, two = (shared(tmp_path, Slow()) for _ in range(2))
    first = trial()
    one.lend(first)
    with pytest.raises(TestOverLimit), Limit(0.7, lambda: None):
        two.lend(trial())
    end(tmp_path, first)
    assert two.lend(trial()).name == "shared"


def test_between_two_tests_whoever_waits_for_all_cores_has_them(tmp_path: Path) -> None:
    machine = shared(tmp_path, Slow(), cores=2)
    first = trial()
    machine.lend(first)
    leases = Leases(tmp_path / "leases.json", memory=10_000, cores=2)
    with pytest.raises(HostError):
        leases.take(holder="somebody", memory=64, cores=2, timeout=0.1)
    end(tmp_path, first)
    leases.take(holder="somebody", memory=64, cores=2, timeout=0.1)
    assert sum(lease.memory for lease in leases.held()) > 64, "its memory stays its own"
    machine.close()
    assert [lease.memory for lease in leases.held()] == [64]


def test_a_test_beside_it_does_not_wait_for_its_core(tmp_path: Path) -> None:
    machine = shared(tmp_path, Slow())
    machine.lend(trial())
    leases = Leases(tmp_path / "leases.json", memory=10_000, cores=1)
    leases.take(holder=machine.holder, memory=64, cores=2, timeout=0.1)
    with pytest.raises(HostError):
        leases.take(holder="somebody", memory=64, cores=1, timeout=0.1)


@pytest.mark.parametrize("answers", [True, False])
def test_a_machine_that_was_lost_is_not_asked_for_leaks(tmp_path: Path, answers: bool) -> None:
    machine = shared(tmp_path, Slow())
    last = trial()
    lent: Any = machine.lend(last)
    lent.execute = Mock(return_value=SimpleNamespace(stdout=""))
    last.answers = Mock(return_value=answers)
    assert machine.leaks() == ""
    assert lent.execute.called is answers
