# SPDX-License-Identifier: GPL-2.0-only
"""One machine for all tests: whose time, room and fault is what happens to it."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest

from lab.errors import HostError
from lab.results.record import TestResult
from lab.testing import limit as limits
from lab.testing import plugin
from lab.testing.lease import Leases
from lab.testing.limit import Limit
from lab.testing.shared import SharedMachine
from lab.testing.trial import Trial
from lab.testing.verdict import TestOverLimit, Verdict
from lab.vm.errors import CommandTimeout, GuestSilent
from lab.vm.machine import Completed
from lab.watch.follow import Watch


class Slow:
    """A provider whose machines take a while to boot, or never do."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error

    def start(self, spec: Any, directory: Path) -> Any:
        """Boot."""
        time.sleep(0.4)
        if self.error:
            raise self.error
        return SimpleNamespace(
            name=spec.name,
            directory=directory,
            body=SimpleNamespace(stop=int),
            channel=SimpleNamespace(overdue=None),
        )


class Guest:
    """A machine whose console and answers a test writes."""

    name = "shared"

    def __init__(self, spec: Any, directory: Path) -> None:
        self.spec, self.directory = spec, directory
        self.body = SimpleNamespace(stop=Mock(), pid=None, alive=lambda: True, monitor=Mock())
        self.channel = SimpleNamespace(overdue=None)
        self.cloned = False
        self.leaks = ""
        self.status = 0
        self.lockdep = " debug_locks:                             1\n"
        self.error: BaseException | None = None
        self.while_looked_at = ""
        directory.mkdir(parents=True)
        self.say("[    0.1] Linux version 6.12.1\n")

    def say(self, text: str) -> None:
        """Onto the console."""
        with (self.directory / "console.log").open("a") as log:
            log.write(text)

    def execute(self, command: str, timeout: float = 0) -> Completed:  # noqa: ARG002
        """What the lab asks."""
        if self.error is not None:
            raise self.error
        if "kmsg" in command:
            self.say("[   99.0] " + command.split("'")[1].removeprefix("<3>") + "\n")
        if "kmemleak" in command:
            self.say(self.while_looked_at)
            return Completed(self.status, self.leaks, "")
        taint = "0\n" if "tainted" in command else ""
        return Completed(0, taint + (self.lockdep if "lockdep_stats" in command else ""), "")


class Quick:
    """A provider of such machines."""

    def __init__(self) -> None:
        self.started: list[Guest] = []

    def start(self, spec: Any, directory: Path) -> Any:
        """Boot."""
        self.started.append(Guest(spec, directory))
        return self.started[-1]


def shared(tmp_path: Path, cold: Any, *, cores: int = 1) -> SharedMachine:
    spec = SimpleNamespace(memory=64, cpus=1, cores=1, patience=1.0)
    rig = SimpleNamespace(spec=lambda name: SimpleNamespace(name=name, **vars(spec)))
    leases = Leases(tmp_path / "leases.json", memory=10_000, cores=cores)
    owner: Any = SimpleNamespace(
        rig=rig,
        provider=cold,
        cold=cold,
        leases=leases,
        directory=tmp_path,
        host=SimpleNamespace(blame=lambda **_: ""),
        watch=lambda: Watch(kernel="6.12.1", flavour="debug"),
        report=Mock(),
    )
    return SharedMachine(owner)


def trial(limit: Limit | None = None) -> Any:
    return SimpleNamespace(limit=limit, borrow=Mock(), never_came=Mock())


def real(tmp_path: Path, test: str, *, expected: tuple[str, ...] = ()) -> Trial:
    """A trial as the plugin makes it."""
    return Trial(
        test=test,
        directory=tmp_path / "nodes" / test,
        provider=Mock(),
        watch=Watch(kernel="6.12.1", flavour="debug"),
        leases=Leases(tmp_path / "leases.json", memory=10_000, cores=1),
        host=Mock(blame=Mock(return_value="")),
        expected=expected,
    )


def run(machine: SharedMachine, test: Trial, *, says: str = "") -> Verdict:
    """One test from lend() to close(), and what its kernel says during it."""
    test.enter("setup")
    lent: Any = machine.lend(test)
    test.enter("test")
    lent.say(says)
    verdict = test.settle(None)
    test.close()
    return verdict


def reports(machine: SharedMachine) -> list[TestResult]:
    """The results that are no test's."""
    owner: Any = machine._owner
    return [call.args[0] for call in owner.report.call_args_list]


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


BUG = "[   {at}.0] BUG: scheduling while atomic: {who}/1/0x2\n"


def test_what_it_says_between_two_tests_is_neithers(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    assert run(machine, real(tmp_path, "first")).status == "passed"
    cold.started[0].say(BUG.format(at=10, who="worker"))
    second = real(tmp_path, "second")
    assert run(machine, second).status == "passed"
    assert second.splats() == ()
    (found,) = reports(machine)
    assert (found.id, found.status, found.exit) == (
        "the shared machine 1::between tests", "kernel", 1,
    )  # fmt: skip
    assert "scheduling while atomic: worker" in found.message
    assert "after first" in found.message
    assert [splat.phase for splat in found.splats] == ["between tests"]
    assert len(cold.started) == 2, "a machine that has reported is not lent again"


def test_what_it_says_after_the_last_test_is_read(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "last"))
    cold.started[0].while_looked_at = BUG.format(at=10, who="scan")
    machine.finish()
    assert [found.status for found in reports(machine)] == ["kernel"]
    assert cold.started[0].body.stop.called


def test_a_report_of_the_boot_is_seen_by_the_first_test(tmp_path: Path) -> None:
    class Bad(Quick):
        def start(self, spec: Any, directory: Path) -> Any:
            guest = super().start(spec, directory)
            guest.say(BUG.format(at=1, who="modprobe"))
            return guest

    machine = shared(tmp_path, Bad())
    assert run(machine, real(tmp_path, "first")).status == "kernel"
    machine.finish()
    assert reports(machine) == [], "one report is charged once"


def test_a_report_is_charged_once(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    assert run(machine, real(tmp_path, "a"), says=BUG.format(at=5, who="a")).status == "kernel"
    assert run(machine, real(tmp_path, "b")).status == "passed"
    assert run(machine, real(tmp_path, "c")).status == "passed"
    machine.finish()
    assert len(cold.started) == 2
    assert reports(machine) == []


def test_a_splat_that_was_asked_for_costs_the_machine(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    asking = real(tmp_path, "asks", expected=("scheduling while atomic",))
    assert run(machine, asking, says=BUG.format(at=5, who="a")).status == "passed"
    # Lockdep is off with it, and that is no news.
    cold.started[0].lockdep = " debug_locks: 0\n"
    assert run(machine, real(tmp_path, "next")).status == "passed"
    assert len(cold.started) == 2
    assert reports(machine) == []


def test_lockdep_that_gives_up_in_silence_fails_the_test(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "first"))
    cold.started[0].lockdep = " debug_locks: 0\n"
    verdict = run(machine, real(tmp_path, "second"))
    assert verdict.status == "kernel"
    assert "lockdep has turned itself off" in verdict.message
    assert run(machine, real(tmp_path, "third")).status == "passed"
    assert len(cold.started) == 2


def test_lockdep_that_gives_up_after_the_last_test(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "last"))
    cold.started[0].lockdep = " debug_locks: 0\n"
    machine.finish()
    (found,) = reports(machine)
    assert found.status == "kernel"
    assert "lockdep has turned itself off" in found.message


LEAK = "unreferenced object 0xffff888003a4e000 (size 64):\n  comm modprobe, pid 77\n"


def test_leaks_are_a_failure_of_the_kernel(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "last"))
    cold.started[0].leaks = LEAK
    cold.started[0].while_looked_at = "[   20.0] kmemleak: 1 new suspected memory leaks (see ...)\n"
    machine.finish()
    (found,) = reports(machine)
    assert (found.id, found.status, found.exit) == ("the shared machine 1::kmemleak", "kernel", 1)
    assert "unreferenced object" in found.message
    assert "pid 77" in found.detail
    assert [node.name for node in found.nodes] == ["shared"]


def test_leaks_are_looked_for_on_every_machine(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "first"), says=BUG.format(at=5, who="a"))
    cold.started[0].leaks = LEAK
    run(machine, real(tmp_path, "second"))
    assert [found.id for found in reports(machine)] == ["the shared machine 1::kmemleak"]
    machine.finish()
    assert len(reports(machine)) == 1


def test_a_kmemleak_that_gave_up_has_not_found_nothing(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "last"))
    cold.started[0].status = 9
    machine.finish()
    (found,) = reports(machine)
    assert (found.status, found.exit) == ("infra", 4)
    assert "kmemleak has turned itself off" in found.message


@pytest.mark.parametrize(
    "error",
    [
        GuestSilent("shared: no answer"),
        CommandTimeout(node="shared", command="cat kmemleak", seconds=60),
    ],
)
def test_one_that_hangs_at_its_end_hangs(tmp_path: Path, error: BaseException) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "last"))
    cold.started[0].error = error
    machine.finish()
    (found,) = reports(machine)
    assert found.status == "kernel"
    assert "the kernel hangs" in found.message
    assert Leases(tmp_path / "leases.json").held() == ()


def test_one_that_hangs_after_its_report_is_charged_once(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "last"), says=BUG.format(at=5, who="a"))
    cold.started[0].error = GuestSilent("shared: no answer")
    machine.finish()
    assert reports(machine) == []


def test_a_machine_that_was_lost_is_not_asked(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    last = real(tmp_path, "last")
    last.enter("test")
    lent: Any = machine.lend(last)
    lent.error = GuestSilent("shared: no answer")
    assert last.settle(None).status == "kernel"
    last.close()
    lent.leaks, lent.execute = LEAK, Mock()
    machine.finish()
    assert not lent.execute.called
    assert reports(machine) == []


def test_whoever_interrupts_does_not_wait_for_it(tmp_path: Path) -> None:
    cold = Quick()
    machine = shared(tmp_path, cold)
    run(machine, real(tmp_path, "last"))
    cold.started[0].leaks = LEAK
    bench = SimpleNamespace(shared=machine)
    session: Any = SimpleNamespace(config=SimpleNamespace(stash={plugin.BENCH: bench}))
    plugin.pytest_sessionfinish(session, pytest.ExitCode.INTERRUPTED)
    assert reports(machine) == []
    plugin.pytest_sessionfinish(session, pytest.ExitCode.OK)
    assert len(reports(machine)) == 1


def test_nobody_goes_on_looking_between_tests(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    machine = shared(tmp_path, Quick())
    for name in ("one", "two", "three"):
        run(machine, real(tmp_path, name))
    machine.finish()
    assert "watch" not in {thread.name for thread in set(threading.enumerate()) - before}
