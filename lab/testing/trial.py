# SPDX-License-Identifier: GPL-2.0-only
"""One test and its machines, from the first to the verdict."""

from __future__ import annotations

import functools
import hashlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from lab.errors import LabError
from lab.kernel.artifact import Kernel
from lab.provider import Provider
from lab.results.record import Mark, Node, Splat
from lab.testing.hang import gather
from lab.testing.host import HostWatch, is_stopped
from lab.testing.lease import Leases, charge
from lab.testing.limit import Limit
from lab.testing.verdict import PASSED, Health, Verdict, judge, sort_out
from lab.vm import lockdep
from lab.vm.errors import CommandTimeout, ConsoleFlooded, GuestPanicked, GuestSilent
from lab.vm.machine import Machine
from lab.vm.spec import MachineSpec
from lab.watch.follow import MARK, Sighting, Watch

#: Seconds (for a patience of 1) that a healthy guest needs at most to answer
#: the question whether it still lives, and its answer to reach the console.
_BARRIER = 10.0

#: Where most tests are, which their directories' names do not repeat.
_TESTS = "tests/e2e/"

#: Characters of a test's id that its directory is called after.
_NAME = 120

#: Seconds (for a patience of 1) that an expected splat may come late.
_SPLAT_PATIENCE = 2.0

#: Lines of a kernel's report that a failure shows.
SHOWN = 60

_TAINT_FILE = "/proc/sys/kernel/tainted"

#: Taint flags that the kernel sets when something went wrong in it, see
#: Documentation/admin-guide/tainted-kernels.rst.
_TAINTS = {4: "M: machine check", 5: "B: bad page", 7: "D: died", 9: "W: warning",
           14: "L: soft lockup"}  # fmt: skip


@dataclass
class _Guest:
    """A machine of a trial and what is known of it."""

    machine: Machine
    lease: str | None
    borrowed: bool = False
    silent: bool = False
    judged: bool = False
    asked: bool = False
    asked_at: float = 0.0
    lost: LabError | None = None
    ended: bool = False
    taint: int = 0
    taint_before: int = 0
    unchecked: bool = False
    unheard: bool = False
    left_at: int = 0


class Trial:
    """Starts the machines of a test, watches their kernels, judges.

    It is a `Provider` itself: whoever starts machines through it (a fixture, a
    topology) has them leased, watched and ended.

    Args:
        test: pytest's node id.
        directory: kept; each node gets a directory in it.
        provider: where machines come from.
        watch: reads their consoles.
        leases: room on the host.
        host: tells whether the host was slow.
        expected: patterns of splats that the test asks for.
        kernel_of: which kernel a machine runs, where that may differ.
        holder: of the leases; one of its own where None.
    """

    name = "trial"

    def __init__(
        self,
        *,
        test: str,
        directory: Path,
        provider: Provider,
        watch: Watch,
        leases: Leases,
        host: HostWatch,
        expected: Sequence[str] = (),
        kernel_of: Callable[[MachineSpec], Kernel] | None = None,
        holder: str | None = None,
    ) -> None:
        self.test = test
        self.directory = directory
        self.provider = provider
        self.watch = watch
        self.leases = leases
        self.host = host
        self.expected = tuple(expected)
        self.kernel_of = kernel_of
        self.verdict = PASSED
        #: Lines of the report that the last verdict is about.
        self.last_report: tuple[str, ...] = ()
        self.marks: list[Mark] = []
        self.topology: dict[str, object] | None = None
        self.limit: Limit | None = None
        self._holder = holder or uuid.uuid4().hex
        self._lock = threading.Lock()
        self._guests: dict[str, _Guest] = {}
        self._absent: dict[str, tuple[MachineSpec, Path]] = {}
        self._began = time.monotonic()
        self._judged = 0

    # What fixtures and topologies use

    def start(
        self,
        spec: MachineSpec,
        directory: Path | None = None,
        *,
        provider: Provider | None = None,
    ) -> Machine:
        """Start a machine that ends with the test; see Provider.start.

        The directory defaults to one named after the node, the provider to the
        cell's.
        """
        where = directory or self.directory / spec.name
        with self._lock:
            if spec.name in self._guests:
                raise ValueError(f"this test has a machine `{spec.name}` already")
        # Neither a host that is full nor a boot is the test's doing, and a boot has a
        # limit of its own: of a kernel that hangs there more is known when that passes.
        with self.limit.paused() if self.limit else nullcontext():
            machine = self._start(spec, where, provider or self.provider)
        self.mark("ready (clone)" if machine.cloned else "ready", node=spec.name)
        return machine

    def _start(self, spec: MachineSpec, where: Path, backend: Provider) -> Machine:
        lease = self.leases.take(
            holder=self._holder,
            memory=charge(spec.memory),
            cores=spec.cores,
        )
        try:
            backend.prepare(spec)
            kernel = self.kernel_of(spec) if self.kernel_of else None
            self.watch.follow(spec.name, where / "console.log", kernel=kernel)
            self.mark("starts", node=spec.name)
            machine = backend.start(spec, where)
        except BaseException:
            self.never_came(spec, where)
            self.leases.give_back(lease)
            raise
        self._take(_Guest(machine=machine, lease=lease))
        return machine

    def never_came(self, spec: MachineSpec, directory: Path) -> None:
        """Remember a machine that did not start: its logs say why."""
        with self._lock:
            self._absent[spec.name] = (spec, directory)

    def borrow(
        self, machine: Machine, *, offset: int = 0, taint: int = 0, lease: str | None = None
    ) -> None:
        """Watch a machine that outlives the test; the lease does not.

        Args:
            machine: somebody else ends it.
            offset: byte of its console.log up to which others have read.
            taint: flags that it had before.
            lease: given back when the test ends.
        """
        self.watch.follow(machine.name, machine.directory / "console.log", offset=offset)
        self._take(_Guest(machine=machine, lease=lease, borrowed=True, taint_before=taint))

    def _take(self, guest: _Guest) -> None:
        """From now on it is this test's."""
        guest.machine.channel.overdue = functools.partial(self._overdue, guest)
        with self._lock:
            self._guests[guest.machine.name] = guest

    def mark(self, what: str, *, node: str = "") -> None:
        """Put a moment on the test's time line."""
        self.marks.append(Mark(when=round(self.watch.now, 3), node=node, what=what))

    def close(self) -> None:
        """End the machines; borrowed ones go on, and what they say is none of this test's."""
        with ExitStack() as stack:
            # What one of them cannot do (its log may not fit on the disk) is told
            # once all are ended.
            stack.callback(self.watch.close)
            stack.callback(self.watch.finish)
            for guest in reversed(self._guests.values()):
                stack.callback(self._let_go, guest)

    def _let_go(self, guest: _Guest) -> None:
        try:
            self._end(guest)
        finally:
            guest.machine.channel.overdue = None
            if guest.borrowed:
                # All up to here has been judged.
                guest.left_at = self.watch.leave(guest.machine.name)

    # What the plugin uses

    @property
    def machines(self) -> tuple[Machine, ...]:
        """Every machine that the test started, ended ones too."""
        with self._lock:
            return tuple(guest.machine for guest in self._guests.values())

    def enter(self, phase: str) -> None:
        """The next phase of the test begins: setup, test, teardown."""
        self.watch.enter(phase)
        self._began = time.monotonic()
        self.mark(phase)

    def settle(
        self, error: BaseException | None, *, last: bool = True, ask: bool = True
    ) -> Verdict:
        """Judge the phase that ends.

        Args:
            error: what ended it.
            last: no splat can be waited for any more.
            ask: ask every machine for its health; otherwise only what its
                console says and whether it runs is looked at.
        """
        health = self._health(ask=ask or error is not None)
        if last and error is None:
            self._await_expected()
        sightings = self.watch.sightings
        # What an earlier phase was judged for is not judged again.
        fresh, self._judged = sightings[self._judged :], len(sightings)
        seen = sort_out(sightings, self.expected)
        new = {id(sighting) for sighting in fresh}
        unexpected = tuple(s for s in seen.unexpected if id(s) in new)
        self.last_report = unexpected[0].event.lines[:SHOWN] if unexpected else ()
        verdict = judge(
            error,
            replace(seen, unexpected=unexpected),
            health,
            last=last,
        )
        self.verdict = self.verdict.worse(verdict)
        return verdict

    def end_machines(self, why: str) -> None:
        """Keep the stacks of what runs, then end every machine: a limit has passed.

        Each is asked first: what a test waited for in vain may be a kernel that hangs.
        """
        for guest in list(self._guests.values()):
            if guest.ended or not guest.machine.body.alive():
                continue
            pid = guest.machine.body.pid
            if not (pid and is_stopped(pid)):
                self._ask(guest)
            if not (guest.silent or guest.lost):
                self._stacks(guest)
            self.mark(f"ended: {why}", node=guest.machine.name)
            guest.machine.body.stop()
            guest.ended = True

    def splats(self) -> tuple[Splat, ...]:
        """Everything that the kernels said, for the results."""
        expected = {id(s) for s in sort_out(self.watch.sightings, self.expected).expected}
        return tuple(splat_of(s, expected=id(s) in expected) for s in self.watch.sightings)

    def nodes(self, base: Path) -> tuple[Node, ...]:
        """The machines, for the results, those that never came too.

        Directories are relative to `base`.
        """
        started = self.machines
        names = {machine.name for machine in started}
        absent = [it for name, it in self._absent.items() if name not in names]
        return (
            *(self._node(it.spec, it.directory, base, cloned=it.cloned) for it in started),
            *(self._node(spec, directory, base) for spec, directory in absent),
        )

    def _node(
        self, spec: MachineSpec, directory: Path, base: Path, *, cloned: bool = False
    ) -> Node:
        inside = directory.is_relative_to(base)
        return Node(
            name=spec.name,
            directory=str(directory.relative_to(base) if inside else directory),
            kernel=self.kernel_of(spec).key if self.kernel_of else "",
            cloned=cloned,
            memory=spec.memory,
            cpus=spec.cpus,
        )

    def taint(self, node: str) -> int:
        """The taint flags that a node had when it was last asked."""
        return self._guests[node].taint

    def answers(self, node: str) -> bool:
        """Whether a node was well when it was last asked."""
        guest = self._guests[node]
        return not (guest.silent or guest.lost or guest.ended)

    def left_at(self, node: str) -> int:
        """Byte of a borrowed machine's console.log up to which it was read and judged."""
        return self._guests[node].left_at

    def reusable(self, node: str) -> bool:
        """Whether a borrowed machine is as good for the next test as it was for this one.

        A splat that the test asked for spoils it too: lockdep gives up with most.
        """
        spoilt = {s.node for s in sort_out(self.watch.sightings, self.expected).expected}
        if self.verdict.status == "kernel" or node in spoilt:
            return False
        return self.answers(node) and not self._guests[node].unchecked

    def _await_expected(self) -> None:
        """A splat may come from a work item or a timer, a moment after its cause."""
        patience = max((m.spec.patience for m in self.machines), default=1.0)
        deadline = time.monotonic() + _SPLAT_PATIENCE * patience
        while time.monotonic() < deadline:
            if not sort_out(self.watch.sightings, self.expected).missing:
                return
            time.sleep(0.05)
            self.watch.finish(patience=0.5)

    # How health is found out

    def _health(self, *, ask: bool) -> Health:
        with self._lock:
            guests = list(self._guests.values())
        for guest in guests:
            if not (guest.ended or guest.silent or guest.lost) and (
                ask or not guest.machine.body.alive()
            ):
                self._ask(guest)
        # What is still being printed gets a moment; what a death cut off, none.
        self.watch.finish(patience=1.0)
        # An earlier phase was judged for what was known then.
        fresh = [guest for guest in guests if (guest.silent or guest.lost) and not guest.judged]
        for guest in fresh:
            guest.judged = True
        silent = [guest for guest in fresh if guest.silent]
        return Health(
            hung=tuple(guest.machine.name for guest in silent),
            lost={guest.machine.name: guest.lost for guest in fresh if guest.lost},
            tainted=self._tainted(guests),
            unchecked=self._unchecked(guests),
            unheard=tuple(guest.machine.name for guest in guests if guest.unheard),
            host_to_blame=self.host.blame(since=self._began),
            hang_excused=self._excuse(silent),
        )

    def _excuse(self, silent: list[_Guest]) -> str:
        """Why the host kept guests from answering, or ""."""
        if not silent:
            return ""
        return self.host.blame(
            # What was before the question did not keep them from answering that.
            since=min(guest.asked_at for guest in silent),
            pids=tuple(guest.machine.body.pid for guest in silent if guest.machine.body.pid),
        )

    def _ask(self, guest: _Guest) -> None:
        """One question that tells: it lives, its log is complete up to here, its taint.

        A borrowed machine also says whether lockdep still checks; others end with the test.

        A marker in the kernel log has passed the console when all that was
        logged before it has.
        """
        machine = guest.machine
        if not machine.body.alive() and machine.body.expected:
            guest.ended = True
            return
        token = f"{MARK}{uuid.uuid4().hex[:12]}"
        guest.asked, guest.asked_at = True, time.monotonic()
        files = f"{_TAINT_FILE} {lockdep.STATS}" if guest.borrowed else _TAINT_FILE
        try:
            said = machine.execute(
                f"echo '<3>{token}' >/dev/kmsg; cat {files} 2>/dev/null", timeout=_BARRIER
            )
        except GuestPanicked as error:
            # The report may still be on its way through the console.
            self.watch.wait_for(machine.name, "end Kernel panic", timeout=5.0)
            guest.lost = error
            return
        except ConsoleFlooded as error:
            guest.lost = error
            return
        except (GuestSilent, CommandTimeout):
            guest.silent = True
            self.mark("does not answer", node=machine.name)
            self._stacks(guest)
            return
        except LabError as error:
            guest.lost = error
            return
        finally:
            guest.asked = False
        guest.unheard = not self._heard(machine, token)
        taint, _, stats = said.stdout.partition("\n")
        if taint.isdigit():
            guest.taint = int(taint)
        guest.unchecked = lockdep.turned_off(stats)

    def _heard(self, machine: Machine, token: str) -> bool:
        """Whether what it logged came to its console, as far as that is read."""
        timeout = _BARRIER * machine.spec.patience
        return (
            self.watch.wait_for(machine.name, token, timeout=timeout)
            or self.watch.flooded(machine.name)
            or not machine.body.alive()
        )

    def _tainted(self, guests: list[_Guest]) -> dict[str, str]:
        """Taints that are new and that no report of the same node explains."""
        spoke = self._spoke()
        result = {}
        for guest in guests:
            fresh = guest.taint & ~guest.taint_before
            new = [name for bit, name in _TAINTS.items() if fresh >> bit & 1]
            if new and guest.machine.name not in spoke:
                result[guest.machine.name] = ", ".join(new)
        return result

    def _overdue(self, guest: _Guest) -> None:
        """A command has had its time: keep what it, or its kernel, hangs in."""
        if guest.asked or guest.ended:
            return
        self.mark("a command hangs", node=guest.machine.name)
        self._stacks(guest)

    def _unchecked(self, guests: list[_Guest]) -> tuple[str, ...]:
        """Nodes whose lockdep gave up, and no report of the same node explains it."""
        spoke = self._spoke()
        return tuple(
            guest.machine.name
            for guest in guests
            if guest.unchecked and guest.machine.name not in spoke
        )

    def _spoke(self) -> set[str]:
        return {s.node for s in self.watch.sightings if s.event.severity != "note"}

    def _stacks(self, guest: _Guest) -> None:
        self.mark("stacks taken", node=guest.machine.name)
        stacks = gather(guest.machine, seen=self._console(guest))
        (guest.machine.directory / "stacks.log").write_text(stacks, encoding="utf-8")

    @staticmethod
    def _console(guest: _Guest) -> Path:
        return guest.machine.directory / "console.log"

    def _end(self, guest: _Guest) -> None:
        if guest.borrowed or guest.ended:
            if guest.lease:
                self.leases.give_back(guest.lease)
                guest.lease = None
            return
        guest.ended = True
        try:
            guest.machine.body.stop()
        finally:
            if guest.lease:
                self.leases.give_back(guest.lease)
                guest.lease = None
            self.mark("ends", node=guest.machine.name)


def directory_name(test: str) -> str:
    """A test's node id as one file name that is still readable.

    Folders are in it, as files in two of them may have one name. Where that
    changes or cuts the id, some digits of its digest keep it from being another
    test's too.
    """
    path, _, rest = test.partition("::")
    file = path.removeprefix(_TESTS).removesuffix(".py")
    name = ".".join([*file.split("/"), *([rest] if rest else [])])
    if "." in file or ("/" in file and not path.startswith(_TESTS)):
        name += "?"
    plain = re.sub(r"[^\w.\[\]=,+-]+", "_", name)[:_NAME].rstrip("_.")
    return plain if plain == name else f"{plain}-{hashlib.sha256(test.encode()).hexdigest()[:6]}"


def splat_of(sighting: Sighting, *, expected: bool = False) -> Splat:
    """A sighting as it stands in the results."""
    event = sighting.event
    return Splat(
        node=sighting.node,
        phase=sighting.phase,
        when=sighting.when,
        time=event.time,
        kind=event.kind,
        severity=event.severity,
        title=event.title,
        fingerprint=event.fingerprint,
        stack=event.stack,
        text=event.text,
        line=event.line,
        expected=expected,
        noise=sighting.noise,
    )
