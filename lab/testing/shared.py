# SPDX-License-Identifier: GPL-2.0-only
"""One machine for all tests of a process: sanitizers need history.

A clone forgets lock orders and young leaks. Under the debug flavour each suite
also runs once in one machine, lockdep learning throughout, kmemleak scanned
before it ends. What it says between two tests is no test's: it has a result of
its own, and so have its leaks.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

import pytest

from lab.errors import LabError
from lab.results.record import EXIT, TestResult
from lab.testing.leaks import Findings, look
from lab.testing.lease import Leases, charge
from lab.testing.rig import Rig
from lab.testing.trial import SHOWN, splat_of
from lab.testing.verdict import Health, Verdict, judge, sort_out
from lab.vm.errors import CommandTimeout, GuestSilent
from lab.vm.machine import Machine
from lab.vm.spec import MachineSpec
from lab.watch.follow import MARK, Sighting, Watch

if TYPE_CHECKING:
    from pathlib import Path

    from lab.provider import Provider
    from lab.testing.host import HostWatch
    from lab.testing.trial import Trial

#: The machine's name.
NAME = "shared"

#: Begins the ids of results that are no test's.
ITSELF = "the shared machine"

_BETWEEN = "between tests"

#: Seconds that the rest of a report, once begun, is waited for.
_REST = 1.0

#: Seconds (for a patience of 1) that a mark needs at most to reach the console.
_ECHO = 2.0


def may_share(item: pytest.Item) -> bool:
    """Whether a test gets the machine of all: it asks for one, a plain one, and not for its own.

    What a test has prepared can be done in any machine.
    """
    own = item.get_closest_marker("fresh") is not None
    shaped = any(mark.kwargs.keys() - {"prepare"} for mark in item.iter_markers("machine"))
    return "machine" in getattr(item, "fixturenames", ()) and not own and not shaped


class Owner(Protocol):
    """What a shared machine needs of the bench."""

    rig: Rig
    provider: Provider
    cold: Provider
    leases: Leases
    directory: Path
    host: HostWatch

    def watch(self) -> Watch:
        """Eyes that have seen nothing yet."""

    def report(self, result: TestResult) -> None:
        """Put a result beside those of the tests."""


class SharedMachine:
    """Lends one machine to test after test; a new one when it was lost or spoilt."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._machine: Machine | None = None
        #: Whoever takes leases besides the machine's does it under its name: it
        #: lies idle meanwhile, and the host may not have a core for both.
        self.holder = uuid.uuid4().hex
        self._lease = ""
        self._number = 0
        self._last: Trial | None = None
        self._read = 0
        self._heard: list[Sighting] = []

    def lend(self, trial: Trial) -> Machine:
        """The machine, watched by the test that gets it from where the last one stopped."""
        # Neither a host that is full, nor the machine's boot, nor what others
        # have left in it is the test's doing.
        with trial.limit.paused() if trial.limit else nullcontext():
            if self._last is not None and not self._is_sound(self._last):
                self.finish()
            cores, machine = self._take_up(trial)
        taint = self._last.taint(NAME) if self._last is not None else 0
        self._last = trial
        trial.borrow(machine, offset=self._read, taint=taint, lease=cores)
        return machine

    def _take_up(self, trial: Trial) -> tuple[str, Machine]:
        """Cores for one test and the machine that uses them."""
        spec = self._owner.rig.spec(NAME)
        cores = self._cores(spec)
        try:
            return cores, self._machine or self._start(spec, trial)
        except BaseException:
            self._owner.leases.give_back(cores)
            raise

    def _cores(self, spec: MachineSpec) -> str:
        """Cores for as long as it works.

        It lives for hours, and between two tests it is idle: others, who may
        want all cores of the host, have their turn there.
        """
        return self._owner.leases.take(holder=self.holder, memory=0, cores=spec.cores)

    def _is_sound(self, last: Trial) -> bool:
        self._listen(last)
        return not self._heard and last.reusable(NAME)

    def _listen(self, last: Trial, *, token: str = "") -> None:
        """Read on where the last test stopped, or we did; up to a token where there is one."""
        self._read = max(self._read, last.left_at(NAME))
        machine = self._machine
        if machine is None or last.verdict.status == "kernel":
            return  # what comes after a report that a test was charged with is its consequence
        watch = self._owner.watch()
        watch.enter(_BETWEEN)
        watch.follow(NAME, machine.directory / "console.log", offset=self._read)
        try:
            if token:
                watch.wait_for(NAME, token, timeout=_ECHO * machine.spec.patience)
            watch.finish(patience=_REST)
            self._read = watch.leave(NAME)
        finally:
            watch.close()
        self._heard += sort_out(watch.sightings, last.expected).unexpected

    def finish(self) -> None:
        """Look for what the machine hides and what it has said since its last test; end it."""
        try:
            if self._machine is not None and self._last is not None:
                self._examine(self._machine, self._last)
        finally:
            self.close()

    def _examine(self, machine: Machine, last: Trial) -> None:
        began = time.monotonic()
        found, token, error = Findings(), "", None
        if last.answers(NAME):
            try:
                found, token = self._look(machine)
            except (LabError, CommandTimeout) as raised:
                error = raised
        self._listen(last, token=token)
        self._charge_leaks(found)
        if last.verdict.status == "kernel":
            return  # what else is wrong with it is the consequence
        # The scan says on the console that it found something.
        heard = [s for s in self._heard if not (found.leaks and s.event.kind == "kmemleak")]
        health = Health(
            hung=(NAME,) if isinstance(error, (GuestSilent, CommandTimeout)) else (),
            # After a splat that a test has answered for, that is no news.
            unchecked=(NAME,) if found.unchecked and last.reusable(NAME) else (),
            hang_excused=self._owner.host.blame(since=began, pids=(machine.body.pid or 0,)),
        )
        self._charge(_BETWEEN, judge(error, sort_out(heard, ()), health, last=False), heard=heard)

    def _look(self, machine: Machine) -> tuple[Findings, str]:
        """What it hides, and the mark on its console after which it said no more."""
        token = f"{MARK}{uuid.uuid4().hex[:12]}"
        cores = self._cores(machine.spec)
        try:
            found = look(machine)
            machine.execute(f"echo '<3>{token}' >/dev/kmsg")
        finally:
            self._owner.leases.give_back(cores)
        return found, token

    def _charge_leaks(self, found: Findings) -> None:
        if found.leaks:
            message = f"kmemleak: {found.leaks.splitlines()[0]}"
            verdict = Verdict(status="kernel", exit=EXIT["kernel"], message=message)
            self._charge("kmemleak", verdict, detail=found.leaks)
        elif found.blind:
            message = "kmemleak has turned itself off, so leaks were not looked for"
            verdict = Verdict(status="infra", exit=EXIT["infra"], message=message)
            self._charge("kmemleak", verdict)

    def _charge(
        self, what: str, verdict: Verdict, *, detail: str = "", heard: Sequence[Sighting] = ()
    ) -> None:
        """A result for what no test did, or all of them; none where all is well."""
        last = self._last
        if verdict.status == "passed" or last is None:
            return
        report = "\n".join(heard[0].event.lines[:SHOWN]) if heard else ""
        nodes = (node for node in last.nodes(self._owner.directory) if node.name == NAME)
        self._owner.report(
            TestResult(
                id=f"{ITSELF} {self._number}::{what}",
                status=verdict.status,
                exit=verdict.exit,
                duration=0.0,
                message=f"{verdict.message} (seen after {last.test})",
                detail=detail or report,
                splats=tuple(splat_of(sighting) for sighting in heard),
                nodes=tuple(nodes),
            )
        )

    def close(self) -> None:
        """End the machine, whatever it hides."""
        machine, self._machine = self._machine, None
        self._last, self._read, self._heard = None, 0, []
        if machine is not None:
            machine.body.stop()
            self._owner.leases.give_back(self._lease)

    def _start(self, spec: MachineSpec, trial: Trial) -> Machine:
        self._lease = self._owner.leases.take(
            holder=self.holder, memory=charge(spec.memory, lasting=True), cores=0
        )
        self._number += 1
        where = self._owner.directory / "nodes" / f"shared-{self._number}"
        try:
            self._machine = self._owner.cold.start(spec, where)
        except BaseException:
            trial.never_came(spec, where)
            self._owner.leases.give_back(self._lease)
            raise
        return self._machine
