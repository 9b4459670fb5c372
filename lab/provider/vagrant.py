# SPDX-License-Identifier: GPL-2.0-only
"""The second backend: Vagrant's machines, in libvirt's session.

A machine is put up once, frozen, and lent to test after test: before each it
is restored to how it was when frozen.  Machines of one shape form a pool with
a Vagrantfile and a libvirt of its own (see vagrant_account).
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock

from lab.errors import InfraError, LabError, UserError
from lab.image import box as boxes
from lab.image.box import Box
from lab.provider import vagrant_preflight as preflight
from lab.provider.vagrant_account import Run, open_run, readable
from lab.provider.vagrant_call import Vagrant
from lab.provider.vagrant_machine import Domain
from lab.provider.vagrant_plan import Plan, Planner, free_block
from lab.provider.vagrant_ssh import SshChannel
from lab.store import Store
from lab.vm import argv
from lab.vm.machine import Machine
from lab.vm.spec import MachineSpec, Nic

CHECKOUT = Path(__file__).resolve().parent.parent.parent
VAGRANTFILE = CHECKOUT / "Vagrantfile"
RECIPE = CHECKOUT / "vm-images/box.yaml"

#: Machines that a pool can have; more of one shape are refused.
POOL = tuple(f"m{number}" for number in range(1, 9))

SNAPSHOT = "pristine"

#: Seconds, for a patience of 1, on a host that does other things too.
UP_TIMEOUT = 300.0
FREEZE_TIMEOUT = 120.0
RESTORE_TIMEOUT = 90.0
VIRSH_TIMEOUT = 60.0
BOX_TIMEOUT = 180.0

#: Bytes of randomness that a restored machine gets; two must not be the same.
SEED = 64


@dataclass
class Slot:
    """One machine of a pool.

    Attributes:
        name: in the Vagrantfile.
        up: it was put up and frozen.
        lent: somebody has it.
        dirty: it must be restored before anybody gets it.
        history: what its kernel wrote until it was frozen.
    """

    name: str
    up: bool = False
    lent: bool = False
    dirty: bool = False
    history: str = ""


class VagrantProvider:
    """Machines that `vagrant up` makes; see Provider.

    Args:
        store: where boxes are kept.
    """

    name = "vagrant"

    def __init__(self, *, store: Store | None = None) -> None:
        self.store = store or Store()
        self._lock = threading.Lock()
        self._pools: dict[MachineSpec, Pool] = {}
        self._machines: list[Machine] = []

    def prepare(self, spec: MachineSpec) -> None:
        """Have a machine ready for the next `start`: put up, or restored."""
        self._pool(spec).prepare()

    def start(self, spec: MachineSpec, directory: Path) -> Machine:
        """A machine that has answered its first command; see Provider.start."""
        machine = self._pool(spec).start(spec, directory)
        with self._lock:
            self._machines.append(machine)
        return machine

    def close(self) -> None:
        """End every machine, and all that is libvirt's with them."""
        with self._lock:
            machines, self._machines = self._machines, []
            pools, self._pools = list(self._pools.values()), {}
        for machine in machines:
            machine.stop()
        for pool in pools:
            pool.close()

    def _pool(self, spec: MachineSpec) -> Pool:
        refuse_more_than_a_domain(spec)
        common = shape(spec)
        with self._lock:
            pool = self._pools.get(common)
            if pool is None:
                preflight.require()
                pool = self._pools[common] = Pool(common, self.store)
            return pool


class Pool:
    """Machines of one shape.

    Args:
        spec: their shape.
        store: where boxes are kept.
    """

    def __init__(self, spec: MachineSpec, store: Store) -> None:
        self.spec = spec
        preflight.require_symbols(spec.kernel.with_name("config"))
        box = boxes.build(RECIPE, store)
        self.run: Run = open_run(store)
        if self.run.account.user is not None:
            # That user cannot be expected to have /dev/kvm.
            spec = replace(spec, accel="tcg")
        self.wires = self.run.short / "w"
        self.sockets = self.run.short / "q"
        for path in (self.wires, self.sockets, self.run.short / "c"):
            path.mkdir(mode=0o700)
            self.run.account.owns(path)
        # Two runs that begin at once shall not look for ports in the same place.
        self.plan: Plan = Planner(self.run.home, box=box, spec=spec).pool(
            POOL, ports=free_block(secrets.randbits(16)), sockets=self.sockets
        )
        self.plan.save(self.run.home)
        shutil.copyfile(VAGRANTFILE, self.run.home / "Vagrantfile")
        for path in self.run.home.iterdir():
            self.run.account.owns(path)
        self.log = self.run.home / "vagrant.log"
        self.vagrant = Vagrant(
            root=self.run.home,
            account=self.run.account,
            env={"LAB_PLAN": str(self.run.home / "plan.json")},
            log=self.log,
        )
        self._slots = [Slot(name) for name in POOL]
        self._ready: list[Slot] = []
        self._free = threading.Lock()
        # One call of vagrant's at a time: two would wait for each other's
        # locks, and the host has nothing to spare while a machine boots.
        self._calls = threading.Lock()
        add_box(box, self.vagrant)
        preflight.session(self.virsh)

    def prepare(self) -> None:
        """Put one more machine among those that are ready."""
        slot = self._take()
        try:
            self._renew(slot)
        except BaseException:
            with self._free:
                slot.lent = False
            raise
        with self._free:
            self._ready.append(slot)

    def start(self, spec: MachineSpec, directory: Path) -> Machine:
        """Lend a machine; what it is comes from the spec."""
        with self._free:
            slot = self._ready.pop() if self._ready else None
        if slot is None:
            self.prepare()
            return self.start(spec, directory)
        try:
            return self._lend(slot, spec, directory)
        except BaseException:
            self._give_back(slot)
            raise

    def close(self) -> None:
        """End it all; nothing that libvirt keeps is anywhere else."""
        self.run.end()

    def virsh(self, words: Sequence[str], *, timeout: float = VIRSH_TIMEOUT) -> str:
        """Ask libvirt.

        Raises:
            InfraError: with what it said.
        """
        done = self.run.account.call(
            ["virsh", "--quiet", "--connect", "qemu:///session", *words],
            cwd=self.run.home,
            timeout=timeout,
        )
        if done.status != 0:
            raise InfraError(f"virsh {' '.join(words)}: {done.tail(3)}")
        return done.stdout

    def domain(self, slot: Slot) -> str:
        """What libvirt calls a machine."""
        return f"{self.plan.prefix}{slot.name}"

    def _take(self) -> Slot:
        with self._free:
            free = [slot for slot in self._slots if not slot.lent]
            if not free:
                raise InfraError(f"all {len(POOL)} machines of the pool are in use")
            # One that is up already, if there is one.
            slot = max(free, key=lambda slot: slot.up)
            slot.lent = True
            return slot

    def _renew(self, slot: Slot) -> None:
        patience = self.spec.patience
        with self._calls:
            if slot.up and slot.dirty:
                try:
                    self._restore(slot)
                    return
                except LabError:
                    # Whatever a test did to it: a new one has it not.
                    slot.up = False
                    self.vagrant.within(UP_TIMEOUT).remove(slot.name)
            if not slot.up:
                self._put_up(slot)
                self.vagrant.within(FREEZE_TIMEOUT * patience).freeze(slot.name, SNAPSHOT)
                slot.history = self._console(slot).read_text(errors="replace")
                slot.up, slot.dirty = True, False

    def _put_up(self, slot: Slot) -> None:
        try:
            self.vagrant.within(UP_TIMEOUT * self.spec.patience).put_up(slot.name)
        except InfraError as error:
            with contextlib.suppress(OSError):
                lines = self._console(slot).read_text(errors="replace").splitlines()
                said = "\n".join(line.rstrip() for line in lines[-10:])
                raise InfraError(f"{error}\nThe machine's console ends with:\n{said}") from error
            raise

    def _restore(self, slot: Slot) -> None:
        self.virsh(
            ["snapshot-revert", self.domain(slot), SNAPSHOT, "--running"],
            timeout=RESTORE_TIMEOUT,
        )

    def _lend(self, slot: Slot, spec: MachineSpec, directory: Path) -> Machine:
        restored, slot.dirty = slot.dirty, True
        pidfile = self.run.short / "libvirt/qemu/run" / f"{self.domain(slot)}.pid"
        body = Domain(
            node=spec.name,
            pid=int(pidfile.read_text()),
            console=self._console(slot),
            begin=0 if restored else None,
            history=slot.history,
            directory=directory,
            monitor=self.sockets / slot.name,
            wires=self.wires,
            release=lambda _: self._end(slot, channel),
        )
        channel = SshChannel(
            node=spec.name,
            port=self.plan.node(slot.name).ssh_port,
            key=self.run.account.vagrant_home / "insecure_private_key",
            patience=spec.patience,
            doom=body.lost,
        )
        machine = Machine(spec=spec, directory=directory, channel=channel, body=body, cloned=True)
        try:
            body.plug(spec.slots())
            machine.succeed(identity(spec))
        except BaseException:
            machine.stop()
            raise
        return machine

    def _end(self, slot: Slot, channel: SshChannel) -> None:
        channel.close()
        self._give_back(slot)

    def _give_back(self, slot: Slot) -> None:
        with self._free:
            slot.dirty = True
            slot.lent = False

    def _console(self, slot: Slot) -> Path:
        return Path(self.plan.node(slot.name).console)


def shape(spec: MachineSpec) -> MachineSpec:
    """What all machines that can share a pool have in common."""
    return replace(spec, name="lab", nics=tuple(Nic() for _ in spec.slots()), ssh_port=None)


def refuse_more_than_a_domain(spec: MachineSpec) -> None:
    """See that a spec asks for nothing that only QEMU started directly has.

    Raises:
        UserError: with what that is.
    """
    plain = MachineSpec(name="", kernel=spec.kernel, root=spec.root)
    for field in ("icount", "single_thread", "acpi_tables", "debug_ports", "gdb"):
        if getattr(spec, field) != getattr(plain, field):
            raise UserError(
                f"{spec.name}: the provider vagrant has no `{field}`",
                right="run this test with --provider qemu",
            )
    captured = [nic for nic in spec.nics if nic.capture is not None]
    if captured:
        raise UserError(
            f"{spec.name}: the provider vagrant captures no card from the start",
            right="start the capture in the test",
        )


def identity(spec: MachineSpec) -> str:
    """The lines of sh that make a restored machine this one: seed, clock, name, addresses."""
    lines = [
        f"printf %s {secrets.token_hex(SEED)} >/dev/urandom",
        f"date -s @{time.time():.3f} >/dev/null",
        f"hostname {shlex.quote(spec.name)}",
    ]
    for number, nic in enumerate(spec.slots()):
        lines.append(f"ip link set eth{number} address {argv.mac(spec, number, nic)}")
    return " && ".join(lines)


def add_box(box: Box, vagrant: Vagrant) -> None:
    """Give Vagrant the box, offline, unless it has it.

    Raises:
        CallFailed: it does not take it; with what it said.
    """
    home = vagrant.account.vagrant_home
    with FileLock(home.with_suffix(".lock")):
        if (home / "boxes" / box.name / box.version / "libvirt").is_dir():
            return
        with readable(box.file) as file:
            catalog = file.parent / "metadata.json"
            catalog.write_text(box.catalog(file))
            catalog.chmod(0o644)
            vagrant.within(BOX_TIMEOUT).add_box(catalog)
