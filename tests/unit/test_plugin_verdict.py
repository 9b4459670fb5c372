# SPDX-License-Identifier: GPL-2.0-only
"""Whose fault it was: every case that the statuses of a test tell apart."""

from __future__ import annotations

import pytest

from lab.errors import HostError, InfraError, KernelError, UserError
from lab.testing.verdict import (
    PASSED,
    Health,
    Sorted,
    TestOverLimit,
    agreed,
    judge,
    sort_out,
)
from lab.vm.errors import (
    CommandFailed,
    CommandRefused,
    ConsoleFlooded,
    GuestFileError,
    GuestNeverAnswered,
    GuestPanicked,
    GuestSilent,
    LineRefused,
    MachineDied,
)
from lab.watch.event import Event
from lab.watch.follow import Sighting

NOTHING = sort_out((), ())
WELL = Health()


def sighting(
    title: str,
    *,
    kind: str = "warn",
    severity: str = "splat",
    node: str = "m",
    noise: str | None = None,
) -> Sighting:
    event = Event(kind=kind, severity=severity, title=title, lines=(title,), stack=(),
                  fingerprint="0", line=1, time=0.0)  # fmt: skip
    return Sighting(node=node, phase="test", when=0.0, event=event, noise=noise)


def status(error: BaseException | None, seen: Sorted = NOTHING, health: Health = WELL) -> str:
    return judge(error, seen, health).status


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (None, "passed", 0),
        (AssertionError("no"), "failed", 1),
        (CommandFailed(node="m", command="c", status=1, stdout="", stderr=""), "failed", 1),
        (pytest.skip.Exception("not here"), "skipped", 0),
        (TestOverLimit("too long"), "failed", 1),
        (GuestPanicked("panic"), "kernel", 1),
        (ConsoleFlooded("flood"), "kernel", 1),
        (KernelError("it"), "kernel", 1),
        (GuestSilent("silent"), "infra", 4),
        (GuestNeverAnswered("silent from its start"), "kernel", 1),
        (MachineDied("killed", reason="qemu"), "infra", 4),
        (MachineDied("stopped by the test", reason="stopped"), "failed", 1),
        (GuestFileError("no such file"), "failed", 1),
        (CommandRefused("too long"), "failed", 1),
        (LineRefused("m", "1 no such device"), "failed", 1),
        (SystemExit(2), "failed", 1),
        (InfraError("socket"), "infra", 4),
        (HostError("no QEMU"), "infra", 3),
        (UserError("typo"), "failed", 2),
    ],
)
def test_errors(error: BaseException | None, expected: str, code: int) -> None:
    verdict = judge(error, NOTHING, WELL)
    assert (verdict.status, verdict.exit) == (expected, code)


def report(outcome: str, **more: str) -> pytest.TestReport:
    made = pytest.TestReport(
        nodeid="t", location=("t.py", 0, "t"), keywords={}, when="call", longrepr="[XPASS(strict)]",
        outcome=outcome,  # type: ignore[arg-type]
    )  # fmt: skip
    vars(made).update(more)
    return made


def raised(error: Exception) -> pytest.ExceptionInfo[Exception]:
    with pytest.raises(type(error)) as info:
        raise error
    return info


FAILED = judge(AssertionError("no"), NOTHING, WELL)


def test_a_failure_that_was_expected_is_none() -> None:
    verdict = agreed(FAILED, report("skipped", wasxfail="known"), raised(AssertionError("no")))
    assert (verdict.status, verdict.exit) == ("skipped", 0)
    assert verdict.message == "failed as expected: AssertionError: no"


def test_a_kernels_failure_is_never_an_expected_one() -> None:
    splat = judge(None, sort_out([sighting("BUG: x")], ()), WELL)
    assert agreed(splat, report("skipped", wasxfail="known"), raised(AssertionError("no"))) == splat


def test_success_where_a_strict_mark_expects_failure() -> None:
    verdict = agreed(PASSED, report("failed"), None)
    assert (verdict.status, verdict.exit, verdict.message) == ("failed", 1, "[XPASS(strict)]")


def test_what_could_not_be_judged_has_not_passed() -> None:
    verdict = agreed(PASSED, report("failed"), raised(OSError(28, "No space left on device")))
    assert (verdict.status, verdict.exit) == ("infra", 4)
    assert "could not judge the test: OSError: [Errno 28] No space left" in verdict.message


def test_reports_of_the_same_opinion_change_nothing() -> None:
    assert agreed(PASSED, report("passed"), None) == PASSED
    assert agreed(FAILED, report("failed"), raised(AssertionError("no"))) == FAILED


def test_a_splat_makes_a_passed_test_the_kernels_failure() -> None:
    verdict = judge(None, sort_out([sighting("WARNING: x")], ()), WELL)
    assert verdict.status == "kernel"
    assert verdict.message == "m: WARNING: x"


def test_a_splat_outweighs_a_dead_machine() -> None:
    seen = sort_out([sighting("BUG: x")], ())
    assert status(MachineDied("gone", reason="qemu"), seen) == "kernel"


def test_noise_and_notes_fail_nobody() -> None:
    seen = sort_out(
        [sighting("WARNING: x", noise="known"), sighting("segfault", severity="note")], ()
    )
    assert status(None, seen) == "passed"


def test_expected_splat_passes_and_must_come() -> None:
    assert status(None, sort_out([sighting("WARNING: x")], ["WARNING: x"])) == "passed"
    assert status(None, sort_out([], ["WARNING: x"])) == "failed"


def test_expected_splat_excuses_no_other() -> None:
    seen = sort_out([sighting("WARNING: x"), sighting("BUG: y")], ["WARNING: x"])
    assert judge(None, seen, WELL).message == "m: BUG: y"


def test_panic_after_an_expected_report_is_expected_on_that_node_only() -> None:
    panic = sighting("Kernel panic - not syncing: Fatal exception", kind="panic")
    elsewhere = sighting("Kernel panic - not syncing: x", kind="panic", node="other")
    assert status(None, sort_out([sighting("BUG: x"), panic], ["BUG: x"])) == "passed"
    assert status(None, sort_out([sighting("BUG: x"), elsewhere], ["BUG: x"])) == "kernel"


def test_a_failed_assertion_stays_one_beside_an_expected_splat() -> None:
    seen = sort_out([sighting("WARNING: x")], ["WARNING: x"])
    assert status(AssertionError("no"), seen) == "failed"


def test_a_hang_is_the_kernels_unless_the_host_was_busy() -> None:
    hung = Health(hung=("m",))
    busy = Health(hung=("m",), hang_excused="the host did not run the lab itself for 9 s")
    assert status(GuestSilent("silent"), health=hung) == "kernel"
    assert status(GuestSilent("silent"), health=busy) == "infra"
    assert status(GuestNeverAnswered("since boot"), health=busy) == "infra"


def test_a_kernel_that_nobody_heard_is_not_a_good_one() -> None:
    deaf = Health(unheard=("m",))
    verdict = judge(None, NOTHING, deaf)
    assert (verdict.status, verdict.exit) == ("infra", 4)
    assert verdict.message.startswith("m: what its kernel logs does not reach its console")
    # What failed, or was said before, is not less true by that.
    assert status(AssertionError("no"), health=deaf) == "failed"
    assert status(None, sort_out([sighting("BUG: x")], ()), deaf) == "kernel"


def test_a_test_over_its_limit_on_a_busy_host_is_not_its_own_fault() -> None:
    assert status(TestOverLimit("late"), health=Health(host_to_blame="busy")) == "infra"


def test_reset_without_a_word_is_a_triple_fault() -> None:
    died = MachineDied("the guest reset itself", reason="guest-reset")
    goodbye = sighting("reboot: Restarting system", kind="reboot", severity="note")
    assert status(died) == "kernel"
    assert status(died, sort_out([goodbye], ())) == "failed"


def test_loss_that_the_test_did_not_notice_counts() -> None:
    lost = Health(lost={"m": MachineDied("killed", reason="qemu")})
    assert status(None, health=lost) == "infra"


def test_loss_after_a_crash_that_was_asked_for_does_not_count() -> None:
    crash = sighting("Kernel panic", kind="panic", severity="fatal", noise="asked for")
    lost = Health(lost={"m": GuestPanicked("panic")})
    assert status(None, sort_out([crash], ()), lost) == "passed"
    assert status(None, NOTHING, lost) == "kernel"


def test_taint_without_a_report_is_the_kernels() -> None:
    assert status(None, health=Health(tainted={"m": "W: warning"})) == "kernel"


def test_the_worse_verdict_stays() -> None:
    passed = judge(None, NOTHING, WELL)
    failed = judge(AssertionError("x"), NOTHING, WELL)
    kernel = judge(GuestPanicked("p"), NOTHING, WELL)
    infra = judge(InfraError("i"), NOTHING, WELL)
    assert passed.worse(failed).status == "failed"
    assert kernel.worse(infra).status == "kernel"
    assert kernel.worse(infra).exit == 4
    assert failed.worse(passed).status == "failed"
