# SPDX-License-Identifier: GPL-2.0-only
"""Machines are leased by memory and cores, so that no `-n` overcommits the host.

What is never overcommitted is what was leased; what a machine will really touch
is an estimate, see `charge`, and a fifth of the host's memory is left for its
errors.

The ledger is one small file for all labs of a user on this host; entries of
processes that are gone are struck out by whoever looks next.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from filelock import FileLock

from lab.errors import HostError
from lab.progress import note
from lab.store import Store
from lab.testing.host import memory_total
from lab.vm.reaper import start_time

#: Share of the host's memory that machines may take.
_SHARE = 0.8
_POLL = 0.05

#: Seconds to wait for room.  Who has it is ended by a limit of their own, an hour
#: and a half for the longest tests on a kernel without sanitizers.
PATIENCE = 7200.0

#: Seconds of waiting before we say so: tests beside each other wait all the time.
SILENCE = 30.0

#: The holder of what was handed over: it waits for nothing, and only a person ends it.
_KEPT = "kept"


def ledger_of(store: Store) -> Path:
    """Where the labs that share a store keep their ledger."""
    return store.root / "leases.json"


@dataclass(frozen=True, kw_only=True)
class Lease:
    """What one test holds or, not granted yet, waits for; memory in MiB."""

    id: str
    pid: int
    born: str
    memory: int
    cores: int
    granted: bool = False

    @property
    def holder(self) -> str:
        """Whose it is: a test's, which gives all of its leases back together."""
        return self.id.partition("/")[0]


class Leases:
    """The ledger.

    Args:
        path: its file; made if need be.
        memory: MiB to give away at most; a share of the host's where None.
        cores: processors to give away; the host's where None.
        say: tells a person what is waited for.
    """

    def __init__(
        self,
        path: Path,
        *,
        memory: int | None = None,
        cores: int | None = None,
        say: Callable[[str], None] = note,
    ) -> None:
        self._path = path
        self._say = say
        self._lock = FileLock(path.with_suffix(".lock"))
        self.memory = memory if memory is not None else int(memory_total() * _SHARE)
        self.cores = cores if cores is not None else len(os.sched_getaffinity(0))
        path.parent.mkdir(parents=True, exist_ok=True)

    def take(self, *, holder: str, memory: int, cores: int, timeout: float = PATIENCE) -> str:
        """Lease memory (MiB) and cores to a holder; waits at most `timeout` seconds.

        A holder that has cores already gets further ones at once: two tests that
        wait for each other's would wait for ever.

        Errors:
            HostError: the host cannot give that much, or did not in time; or all
                who hold something wait, so that nobody will give anything back.
        """
        if memory > self.memory:
            raise HostError(
                f"a machine wants {memory} MiB, the host gives {self.memory} MiB to machines",
                right="ask for less memory, or free some",
            )
        lease = Lease(
            id=f"{holder}/{uuid.uuid4().hex}",
            pid=os.getpid(),
            born=_born(os.getpid()),
            memory=memory,
            cores=cores,
        )
        try:
            self._await(lease, timeout)
        except BaseException:
            self.give_back(lease.id)
            raise
        return lease.id

    def _await(self, lease: Lease, timeout: float) -> None:
        began = time.monotonic()
        said = False
        while not self._granted(lease):
            waited = time.monotonic() - began
            if waited >= timeout:
                raise HostError(
                    f"no room for a machine of {lease.memory} MiB within {timeout:g} s: "
                    f"{self._taken()}",
                    right="end what has it, or run fewer tests at once (-n)",
                )
            if waited >= SILENCE and not said:
                said = True
                self._say(f"waiting for room for a machine of {lease.memory} MiB: {self._taken()}")
            time.sleep(_POLL)

    def _taken(self, leases: Sequence[Lease] | None = None) -> str:
        held = self.held() if leases is None else [one for one in leases if one.granted]
        cores, memory = sum(one.cores for one in held), sum(one.memory for one in held)
        who = ", ".join(f"process {pid}" for pid in sorted({one.pid for one in held})) or "nobody"
        return (
            f"{cores} of {self.cores} cores and {memory} of {self.memory} MiB are leased by {who}"
        )

    def _granted(self, lease: Lease) -> bool:
        """Whether a lease is had; its place in the queue is, from the first time on."""
        with self._ledger() as leases:
            places = {known.id: place for place, known in enumerate(leases)}
            place = places.setdefault(lease.id, len(leases))
            fits = self._fits(leases, lease, before=leases[:place])
            leases[place:] = [replace(lease, granted=fits), *leases[place + 1 :]]
            hopeless = None if fits else self._hopeless(leases, lease)
            if hopeless:
                # In the same breath, so that no other gives up for our sake.
                del leases[place]
        if hopeless:
            raise hopeless
        return fits

    def _hopeless(self, leases: list[Lease], wanted: Lease) -> HostError | None:
        """Why a lease will never be granted, if that can be told.

        Who wants only cores goes on waiting: whoever waits for memory gives way.
        """
        mine = sum(one.memory for one in leases if one.granted and one.holder == wanted.holder)
        if mine + wanted.memory > self.memory:
            return HostError(
                f"the machines of one test want {mine + wanted.memory} MiB together, "
                f"the host gives {self.memory} MiB to machines",
                right="ask for fewer machines or less memory, or free some",
            )
        if wanted.memory and self._is_deadlock(leases, wanted):
            return HostError(
                f"no room for a machine of {wanted.memory} MiB: all tests that have machines "
                f"wait for more, {self._taken(leases)}",
                right="run fewer tests at once (-n)",
            )
        return None

    def _is_deadlock(self, leases: list[Lease], wanted: Lease) -> bool:
        """Whether one holder waits for others that all wait as well.

        A holder that has a place in the queue goes nowhere until it is granted, and
        gives back nothing before its end.
        """
        holders = {one.holder for one in leases if one.granted} - {_KEPT}
        waiting = {one.holder for one in leases if not one.granted}
        if wanted.holder not in holders or len(holders) < 2 or not holders <= waiting:
            return False
        return not any(
            self._fits(leases, one, before=leases[:place])
            for place, one in enumerate(leases)
            if not one.granted
        )

    def give_back(self, lease: str) -> None:
        """End a lease; one that is not there any more is no error."""
        with self._ledger() as leases:
            leases[:] = [known for known in leases if known.id != lease]

    def hand_over(self, lease: str, pid: int) -> None:
        """Make a lease another process's, with which it ends: a machine's that stays.

        It cannot be given back any more.
        """
        with self._ledger() as leases:
            leases[:] = [
                replace(known, id=f"{_KEPT}/{known.id}", pid=pid, born=_born(pid))
                if known.id == lease
                else known
                for known in leases
            ]

    def held(self) -> tuple[Lease, ...]:
        """The leases of living processes."""
        with self._ledger() as leases:
            return tuple(lease for lease in leases if lease.granted)

    def _fits(self, leases: list[Lease], wanted: Lease, *, before: list[Lease]) -> bool:
        held = [lease for lease in leases if lease.granted]
        if sum(lease.memory for lease in held) + wanted.memory > self.memory:
            return False
        if not wanted.cores:
            return True
        busy = [lease for lease in held if lease.cores]
        if any(lease.holder == wanted.holder for lease in busy):
            return True
        # First come, first served: who wants all cores would else wait for
        # ever on a host where there is always somebody with one.
        if not all(lease.granted for lease in before):
            return False
        return not busy or sum(lease.cores for lease in busy) + wanted.cores <= self.cores

    @contextmanager
    def _ledger(self) -> Iterator[list[Lease]]:
        with self._lock:
            before = self._read()
            leases = [lease for lease in before if _born(lease.pid) == lease.born]
            yield leases
            if leases != before:
                new = self._path.with_suffix(".new")
                new.write_text(json.dumps([asdict(lease) for lease in leases]), encoding="utf-8")
                new.replace(self._path)

    def _read(self) -> list[Lease]:
        try:
            return [Lease(**entry) for entry in json.loads(self._path.read_text("utf-8"))]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            # A torn ledger means that its writer died; leases are only advice.
            return []


#: MiB of QEMU itself, and after hours, when it has translated much of the guest.
_QEMU = 96
_QEMU_LATER = 256


def charge(memory: int, *, lasting: bool = False) -> int:
    """MiB to lease for a guest of so many MiB: an estimate, for a guest touches a part of it.

    The PSS of some 250 machines of the lab's own tests, under TCG, taken every two
    seconds to their ends:

        clones of 512 MiB, default     median 120, nine in ten below 250, at most 448
        clones of 1024 MiB, debug      median 135, nine in ten below 190, at most 410
        booted, 1024 MiB, debug        about 560 for one test, 944 after four in a row,
                                       1175 after a quarter of an hour

    Half of the memory covers all but a few that fill their guest; a quarter, as it
    was before, covered no debug machine that was booted.

    Args:
        memory: of the guest, in MiB.
        lasting: it runs one test after the other, and touches all in the end.
    """
    return _QEMU_LATER + memory if lasting else _QEMU + memory // 2


def _born(pid: int) -> str:
    """When a process started, in ticks; "" if it is gone. Pids are used again."""
    return str(start_time(pid) or "")
