# SPDX-License-Identifier: GPL-2.0-only
"""From a spec to a machine that answers: the cold way, and what all ways share."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.errors import UserError
from lab.vm import argv, loop
from lab.vm.argv import Memory, Places
from lab.vm.channel import AgentChannel
from lab.vm.errors import GuestNeverAnswered, GuestSilent
from lab.vm.executor import Executor, ExecutorChannel
from lab.vm.machine import Machine
from lab.vm.qemu import Qemu
from lab.vm.runtime import runtime
from lab.vm.spec import MachineSpec

#: Seconds from QEMU's start to the agent's first answer; it takes 2.5 here
#: without hardware virtualisation.
BOOT_TIMEOUT = 60.0

#: Seconds for one of a spec's `prepare` commands.
PREPARE_TIMEOUT = 60.0


@dataclass(frozen=True)
class Started:
    """A QEMU and the ways to its guest."""

    qemu: Qemu
    channel: AgentChannel
    executor: Executor

    async def start(self) -> None:
        """Start QEMU and take up every port, before the guest looks at them."""
        await self.qemu.start()
        await self.executor.connect()
        await self.channel.connect()

    def machine(self, spec: MachineSpec, *, cloned: bool = False) -> Machine:
        """The machine that a test gets."""
        return Machine(
            spec=spec,
            directory=self.qemu.places.directory,
            channel=ExecutorChannel(self.executor),
            body=self.qemu,
            cloned=cloned,
        )


def assemble(
    spec: MachineSpec, directory: Path, *, memory: Memory | None = None, sockets: Path | None = None
) -> Started:
    """All the parts of a machine, nothing started yet.

    Args:
        spec: what it is.
        directory: for its logs.
        memory: the snapshot's, when making or using one.
        sockets: where they go, if not into this process's private directory.

    Raises:
        UserError: the kernel, image or payload is not there.
    """
    for what, file in (("kernel", spec.kernel), ("image", spec.root), ("payload", spec.payload)):
        if file is not None and not file.is_file():
            raise UserError(f"the {what} of {spec.name} is not there", file=file)
    places = Places(directory=directory.absolute(), runtime=sockets or runtime().directory())
    qemu = Qemu(
        node=spec.name, argv=argv.compose(spec, places=places, memory=memory), places=places
    )
    executor = Executor(
        node=spec.name, socket=places.executor, patience=spec.patience, doom=qemu.doom
    )
    channel = AgentChannel(
        node=spec.name,
        socket=places.agent,
        patience=spec.patience,
        doom=qemu.doom,
    )
    qemu.closers += [channel.close, executor.close]
    return Started(qemu, channel, executor)


def guarded(started: Started, work: Coroutine[Any, Any, None]) -> None:
    """Run what starts a machine; if it fails or is interrupted, the machine ends."""
    try:
        loop.call(work)
    except BaseException:
        started.qemu.stop()
        raise


def boot(spec: MachineSpec, directory: Path, *, sockets: Path | None = None) -> Machine:
    """Boot a machine, wait for its first answer and prepare it.

    With `gdb` it starts stopped: only what prepares it is waited for, until a person
    has let it go on, which the spec's patience must allow for.

    Raises:
        HostError: the host refused QEMU memory.
        MachineDied: QEMU ended; with what it said.
        GuestPanicked: the kernel panicked before the guest answered.
        GuestNeverAnswered: it has been silent from its start.
    """
    started = assemble(spec, directory, sockets=sockets)
    guarded(started, started.start() if spec.gdb else awake(started, spec))
    machine = started.machine(spec)
    try:
        prepare(machine)
    except BaseException:
        machine.stop()
        raise
    return machine


async def awake(started: Started, spec: MachineSpec) -> None:
    """Start QEMU and wait for the agent's first answer."""
    await started.start()
    limit = BOOT_TIMEOUT * spec.patience
    try:
        await started.channel.ping(timeout=limit)
    except GuestSilent as error:
        if type(error) is not GuestSilent:
            raise
        lines = started.qemu.console().strip().splitlines()
        last = (
            f"; its console ends with: {lines[-1].strip()}" if lines else "; its console is empty"
        )
        raise GuestNeverAnswered(
            f"{spec.name}: the guest did not answer within {limit:g} s of its start{last}"
        ) from error


def prepare(machine: Machine) -> None:
    """Run the spec's `prepare` commands.

    Raises:
        CommandFailed, CommandTimeout: one of them did not do.
    """
    for command in machine.spec.prepare:
        machine.succeed(command, timeout=PREPARE_TIMEOUT)
