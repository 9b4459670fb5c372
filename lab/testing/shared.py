# SPDX-License-Identifier: GPL-2.0-only
"""One machine for all tests of a process: sanitizers need history.

A clone forgets lock orders and young leaks. Under the debug flavour each suite
also runs once in one machine, lockdep learning throughout, kmemleak scanned
at its end.
"""

from __future__ import annotations

import uuid
from contextlib import nullcontext
from typing import TYPE_CHECKING, Protocol

import pytest

from lab.testing.lease import Leases, charge
from lab.testing.rig import Rig
from lab.vm.machine import Machine
from lab.vm.spec import MachineSpec

if TYPE_CHECKING:
    from pathlib import Path

    from lab.provider import Provider
    from lab.testing.trial import Trial

#: kmemleak ignores objects younger than 5 seconds.
_YOUNG = 6.0
_SCAN = (
    "test -e /sys/kernel/debug/kmemleak || exit 0; sleep {young};"
    " for turn in 1 2; do echo scan >/sys/kernel/debug/kmemleak; done;"
    " cat /sys/kernel/debug/kmemleak"
)


def may_share(item: pytest.Item) -> bool:
    """Whether a test gets the machine of all: it asks for one, a plain one, and not for its own."""
    own = item.get_closest_marker("fresh") is not None
    shaped = any(mark.kwargs for mark in item.iter_markers("machine"))
    return "machine" in getattr(item, "fixturenames", ()) and not own and not shaped


class Owner(Protocol):
    """What a shared machine needs of the bench."""

    rig: Rig
    provider: Provider
    cold: Provider
    leases: Leases
    directory: Path


class SharedMachine:
    """Lends one machine to test after test; a new one when it was lost."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._machine: Machine | None = None
        #: Whoever takes leases besides the machine's does it under its name: it
        #: lies idle meanwhile, and the host may not have a core for both.
        self.holder = uuid.uuid4().hex
        self._lease = ""
        self._number = 0
        self._last: Trial | None = None

    def lend(self, trial: Trial) -> Machine:
        """The machine, watched by the test that gets it."""
        taint = 0
        if self._machine is not None and self._last is not None:
            if self._last.verdict.status == "kernel" or not self._last.answers("shared"):
                self.close()
            else:
                taint = self._last.taint("shared")
        # Neither a host that is full nor the machine's boot is the test's doing.
        with trial.limit.paused() if trial.limit else nullcontext():
            cores, machine = self._take_up()
        self._last = trial
        trial.borrow(machine, taint=taint, lease=cores)
        return machine

    def _take_up(self) -> tuple[str, Machine]:
        """Cores for one test and the machine that uses them.

        It lives for hours, and between two tests it is idle: others, who may
        want all cores of the host, have their turn there.
        """
        spec = self._owner.rig.spec("shared")
        cores = self._owner.leases.take(holder=self.holder, memory=0, cores=spec.cpus)
        try:
            return cores, self._machine or self._start(spec)
        except BaseException:
            self._owner.leases.give_back(cores)
            raise

    def leaks(self) -> str:
        """What kmemleak finds now, "" where it finds nothing or is not built in.

        A machine that the last test has lost is not asked.
        """
        if self._machine is None or self._last is None or not self._last.answers("shared"):
            return ""
        found = self._machine.execute(_SCAN.format(young=_YOUNG), timeout=60)
        return found.stdout.strip()

    def close(self) -> None:
        """End the machine."""
        machine, self._machine = self._machine, None
        if machine is not None:
            machine.body.stop()
            self._owner.leases.give_back(self._lease)

    def _start(self, spec: MachineSpec) -> Machine:
        self._lease = self._owner.leases.take(
            holder=self.holder, memory=charge(spec.memory), cores=0
        )
        self._number += 1
        where = self._owner.directory / "nodes" / f"shared-{self._number}"
        try:
            self._machine = self._owner.cold.start(spec, where)
        except BaseException:
            self._owner.leases.give_back(self._lease)
            raise
        return self._machine
