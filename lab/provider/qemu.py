# SPDX-License-Identifier: GPL-2.0-only
"""The default backend: QEMU started directly, no daemon, no root."""

from __future__ import annotations

import threading
from pathlib import Path

from lab.errors import HostError, LabError
from lab.progress import note
from lab.store import Artifact, Store, key
from lab.vm import snapshot
from lab.vm.boot import boot
from lab.vm.errors import CommandFailed, CommandTimeout, ConsoleFlooded, GuestPanicked
from lab.vm.machine import Machine
from lab.vm.qemu import Qemu
from lab.vm.snapshot import Inspect
from lab.vm.spec import MachineSpec


class QemuProvider:
    """Clones of snapshots where possible, cold boots otherwise.

    Args:
        store: where snapshots are kept; None boots every machine cold.
        inspect: sees a base's spec and kernel log before it is frozen; what it returns
            is the reason to refuse it.
    """

    name = "qemu"

    def __init__(self, *, store: Store | None = None, inspect: Inspect | None = None) -> None:
        self.store = store
        self.inspect = inspect
        self._lock = threading.Lock()
        self._machines: list[Machine] = []
        self._refused: set[str] = set()
        self._looking = threading.Lock()
        self._torn: dict[str, bool] = {}

    def start(self, spec: MachineSpec, directory: Path) -> Machine:
        """A machine that has answered its first command; see Provider.start."""
        frozen = self.freeze(spec)
        machine = None if frozen is None else self._clone(spec, directory, frozen)
        if machine is None:
            machine = boot(spec, directory)
        with self._lock:
            # A session starts thousands.
            self._machines = [one for one in self._machines if not _is_stopped(one)]
            self._machines.append(machine)
        return machine

    def prepare(self, spec: MachineSpec) -> None:
        """See Provider.prepare."""
        self.freeze(spec)

    def freeze(self, spec: MachineSpec) -> Artifact | None:
        """The snapshot for a spec, made if need be; None, with a notice, if there can be none."""
        if self.store is None or snapshot.clonable(spec) is not None:
            return None
        name = key(snapshot.inputs(spec))
        if name in self._refused:
            return None
        try:
            return snapshot.make(spec, self.store, self.inspect)
        except (LabError, CommandFailed, CommandTimeout) as error:
            self._refused.add(name)
            note(f"no snapshot, so machines boot cold: {error}")
            return None

    def close(self) -> None:
        """End every machine that is still running."""
        with self._lock:
            machines, self._machines = self._machines, []
        for machine in machines:
            machine.stop()

    def _clone(
        self, spec: MachineSpec, directory: Path, frozen: Artifact, *, again: bool = False
    ) -> Machine | None:
        try:
            return snapshot.clone(spec, directory, frozen)
        except LabError as error:
            # A kernel with holes in its memory may panic as well.
            if not again and not isinstance(error, HostError) and self._was_torn(frozen):
                new = self.freeze(spec)
                return None if new is None else self._clone(spec, directory, new, again=True)
            if isinstance(error, (GuestPanicked, ConsoleFlooded)):
                raise  # the kernel's own doing, which booting it again may hide
            note(f"{spec.name} boots cold, its clone failed: {error}")
            return None

    def _was_torn(self, frozen: Artifact) -> bool:
        """Whether a snapshot is not what was frozen; looked at once, for that takes a second."""
        assert self.store is not None
        with self._looking:
            if frozen.key not in self._torn:
                self._torn[frozen.key] = self.store.discard_if_torn(frozen.kind, frozen.key)
            return self._torn[frozen.key]


def _is_stopped(machine: Machine) -> bool:
    return isinstance(machine.body, Qemu) and machine.body.stopped
