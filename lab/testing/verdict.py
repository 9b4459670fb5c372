# SPDX-License-Identifier: GPL-2.0-only
"""Whose fault it was: from an error and what the kernels said to one status.

Pure, so that every case is a unit test.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
from _pytest.outcomes import Failed

from lab.errors import HostError, InfraError, KernelError, LabError
from lab.results.record import EXIT, RANK, Status
from lab.vm.errors import (
    CommandRefused,
    ConsoleFlooded,
    GuestFileError,
    GuestNeverAnswered,
    GuestPanicked,
    LineRefused,
    MachineDied,
)
from lab.watch.follow import Sighting


class KernelFailed(Failed):
    """The kernel under test splatted, hung or died during a test."""


class TestOverLimit(Failed):
    """A test took longer than its limit; its machines were ended.

    No Exception: a loop that tries again after any of those would catch it.
    """

    __test__ = False


@dataclass(frozen=True, kw_only=True)
class Health:
    """What is known of the machines and the host when a phase of a test ends.

    Attributes:
        hung: nodes whose QEMU runs while their kernel does not answer.
        lost: nodes that are gone although nobody asked for it, and how.
        tainted: node -> what its taint flags say that no report explains.
        unchecked: nodes whose lockdep has given up, and no report says why.
        unheard: nodes whose log did not come to their console.
        host_to_blame: why the host, not the guest, made machines slow; or "".
        hang_excused: why the host kept those that are hung from answering; or "".
    """

    hung: tuple[str, ...] = ()
    lost: dict[str, LabError] = field(default_factory=dict)
    tainted: dict[str, str] = field(default_factory=dict)
    unchecked: tuple[str, ...] = ()
    unheard: tuple[str, ...] = ()
    host_to_blame: str = ""
    hang_excused: str = ""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The status of a phase of a test, and one line that says why."""

    status: Status
    exit: int
    message: str = ""

    def worse(self, other: Verdict) -> Verdict:
        """The worse of the two; the first where they are equal."""
        worst = max(self, other, key=lambda verdict: RANK[verdict.status])
        return Verdict(status=worst.status, exit=max(self.exit, other.exit), message=worst.message)


PASSED = Verdict(status="passed", exit=0)


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """Sightings sorted by what the test expects."""

    expected: tuple[Sighting, ...]
    unexpected: tuple[Sighting, ...]
    missing: tuple[str, ...]
    goodbyes: tuple[Sighting, ...] = ()
    excused: tuple[Sighting, ...] = ()


def sort_out(sightings: Sequence[Sighting], patterns: Sequence[str]) -> Sorted:
    """Tell the splats that a test asks for from those that it does not.

    A pattern is searched in the whole text of a report; one report can answer
    several patterns. A panic that follows an expected report on the same node
    is its consequence, and expected with it.
    """
    expected: list[Sighting] = []
    unexpected: list[Sighting] = []
    answered: set[str] = set()
    hurt: set[str] = set()
    for sighting in sightings:
        found = [p for p in patterns if re.search(p, sighting.event.text)]
        answered.update(found)
        if found or (sighting.event.kind == "panic" and sighting.node in hurt):
            expected.append(sighting)
            hurt.add(sighting.node)
        elif sighting.counts:
            unexpected.append(sighting)
    return Sorted(
        expected=tuple(expected),
        unexpected=tuple(unexpected),
        missing=tuple(p for p in patterns if p not in answered),
        excused=tuple(s for s in sightings if s.noise and s.event.severity == "fatal"),
        goodbyes=tuple(s for s in sightings if s.event.kind == "reboot"),
    )


def judge(
    error: BaseException | None, seen: Sorted, health: Health, *, last: bool = True
) -> Verdict:
    """The verdict on one phase of a test.

    Args:
        error: what the test raised, if it did.
        seen: the splats up to now.
        health: the machines and the host.
        last: whether expected splats that are missing count already.
    """
    if seen.unexpected:
        first = seen.unexpected[0]
        return _kernel(f"{first.node}: {first.event.title}")
    expected_loss = {sighting.node for sighting in (*seen.expected, *seen.excused)}
    tainted = [(n, what) for n, what in health.tainted.items() if n not in expected_loss]
    if tainted:
        node, what = tainted[0]
        return _kernel(f"{node}: the kernel is tainted ({what}) and its log does not say why")
    unchecked = [node for node in health.unchecked if node not in expected_loss]
    if unchecked:
        return _kernel(
            f"{unchecked[0]}: lockdep has turned itself off and its log does not say why"
        )
    hung = [node for node in health.hung if node not in expected_loss]
    if hung:
        if health.hang_excused:
            return _infra(f"{hung[0]} does not answer, but {health.hang_excused}")
        return _kernel(f"{hung[0]}: the kernel hangs: QEMU runs, the guest does not answer")
    lost = [why for node, why in health.lost.items() if node not in expected_loss]
    return _by_error(lost[0] if error is None and lost else error, seen, health, last=last)


def agreed(
    verdict: Verdict,
    report: pytest.TestReport,
    excinfo: pytest.ExceptionInfo[BaseException] | None,
) -> Verdict:
    """The verdict on a test, where pytest makes something else of a phase.

    Marks such as `xfail` are pytest's, and what went wrong while the verdict was
    sought is in its report alone.

    Args:
        verdict: what errors, kernels and machines came to.
        report: pytest's, of the phase.
        excinfo: what the phase raised.
    """
    if report.skipped and hasattr(report, "wasxfail") and verdict.status == "failed":
        return Verdict(status="skipped", exit=0, message=f"failed as expected: {verdict.message}")
    if not report.failed or verdict.exit:
        return verdict
    if excinfo is None:
        return verdict.worse(_failed(report.longreprtext))
    return verdict.worse(_infra(f"the lab could not judge the test: {excinfo.exconly()}"))


def _by_error(error: BaseException | None, seen: Sorted, health: Health, *, last: bool) -> Verdict:
    match error:
        case None:
            return _without_error(seen, health, last=last)
        case pytest.skip.Exception():
            return Verdict(status="skipped", exit=0, message=str(error))
        case TestOverLimit() | GuestNeverAnswered() if health.host_to_blame:
            return _infra(f"{error}; {health.host_to_blame}")
        case LabError():
            return _by_lab_error(error, seen)
    return _failed(_first_line(error))


def _without_error(seen: Sorted, health: Health, *, last: bool) -> Verdict:
    if last and seen.missing:
        return _failed(f"expected from the kernel, never seen: {seen.missing[0]}")
    if health.unheard:
        return _infra(
            f"{health.unheard[0]}: what its kernel logs does not reach its console any more, "
            "so nobody knows whether it reported anything"
        )
    return PASSED


def _by_lab_error(error: LabError, seen: Sorted) -> Verdict:
    match error:
        case GuestPanicked() | GuestNeverAnswered() | KernelError() | ConsoleFlooded():
            return _kernel(str(error))
        case MachineDied(reason="guest-reset" | "guest-shutdown"):
            return _ended_itself(error, seen)
        case GuestFileError() | CommandRefused() | LineRefused() | MachineDied(reason="stopped"):
            # What it asked for cannot be done in this guest, or to one that it stopped.
            return _failed(str(error))
        case InfraError():
            return _infra(str(error))
        case HostError():
            return Verdict(status="infra", exit=error.exit_status, message=str(error))
    return Verdict(status="failed", exit=error.exit_status, message=str(error))


def _ended_itself(error: MachineDied, seen: Sorted) -> Verdict:
    """User space says so in the log when it reboots; a triple fault says nothing."""
    return _failed(str(error)) if seen.goodbyes else _kernel(f"{error}, without saying why")


def _first_line(error: BaseException | None) -> str:
    text = str(error).strip()
    kind = type(error).__name__
    return f"{kind}: {text.splitlines()[0]}" if text else kind


def _kernel(message: str) -> Verdict:
    return Verdict(status="kernel", exit=EXIT["kernel"], message=message)


def _infra(message: str) -> Verdict:
    return Verdict(status="infra", exit=EXIT["infra"], message=message)


def _failed(message: str) -> Verdict:
    return Verdict(status="failed", exit=EXIT["failed"], message=message)
