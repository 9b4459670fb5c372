# SPDX-License-Identifier: GPL-2.0-only
"""A booted machine, frozen: clones of it answer in a fraction of a boot's time.

The base boots with its memory in a file.  Once it is ready it is stopped, and
its devices are saved without the memory (migration with x-ignore-shared).  A
clone maps the file privately, so all clones share what they do not write, and
loads the devices.  The root is erofs below a tmpfs, so no disk needs a copy.

All machines of one shape share a snapshot: its cards are plugged into
nothing, and the clone's command line puts wires in their places.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import shlex
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lab.errors import InfraError, LabError
from lab.process import run
from lab.store import Artifact, Json, Store
from lab.vm import argv, boot, lockdep, loop
from lab.vm.argv import Memory, Places
from lab.vm.boot import Started
from lab.vm.machine import Machine
from lab.vm.qemu import plain
from lab.vm.spec import MachineSpec, Nic
from lab.vm.wake import wake

#: Says why a machine of this spec must not be frozen with this kernel log, or
#: None.  Given by lab.watch.
Inspect = Callable[[MachineSpec, str], str | None]

#: Changes with the recipe below, so that older snapshots are not used.
RECIPE = 3

#: Taint that the lab's own modules bring: out of tree (O) and unsigned (E).
HARMLESS_TAINT = 1 << 12 | 1 << 13

#: Seconds to save or load the devices; it takes 0.05.
TRANSFER_TIMEOUT = 30.0

#: Seconds until a shell waits for a clone's first command; it takes 0.05.
SPARE_TIMEOUT = 10.0

#: The last words of a base's kernel log; what was logged before them has passed
#: the console once they have.
MARK = "lab: frozen here"

#: Seconds that they need at most; it takes 0.01.
ECHO_TIMEOUT = 10.0

#: Forgets which warnings were given once; tells the taint, and of lockdep where it
#: is built in.
_LAST_WORDS = f"""
echo 1 2>/dev/null >/sys/kernel/debug/clear_warn_once
cat /proc/sys/kernel/tainted || exit
cat {lockdep.STATS} 2>/dev/null
echo '<3>{MARK}' >/dev/kmsg
"""


class Unfit(InfraError):
    """A machine that must not be frozen, or a spec that cannot be cloned."""


def clonable(spec: MachineSpec) -> str | None:
    """Why machines of this spec are never cloned, or None if they are."""
    if spec.icount:
        return "a clone's instruction count is not exact"
    if spec.gdb is not None:
        return "gdb wants to see the boot"
    return None


def shape(spec: MachineSpec) -> MachineSpec:
    """What all machines that can share a snapshot have in common."""
    return replace(
        spec,
        name="lab",
        patience=1.0,
        nics=tuple(Nic() for _ in spec.slots()),
        ssh_port=None if spec.ssh_port is None else 0,
    )


def inputs(spec: MachineSpec) -> dict[str, Json]:
    """Everything that decides what a snapshot is: its content key's inputs.

    The kernel, image and payload count by path, size and time: they are
    artifacts, which never change in place.
    """
    common = shape(spec)
    files = (common.kernel, common.root, common.payload, *common.acpi_tables)
    nowhere = Places(directory=Path("/"), runtime=Path("/"))
    return {
        "recipe": RECIPE,
        "qemu": qemu_version(argv.program()),
        "files": [_identity(file) for file in files],
        "argv": argv.compose(
            common, places=nowhere, memory=Memory(file=Path("/memory"), frozen=False)
        ),
        "prepare": list(common.prepare),
    }


@functools.cache
def qemu_version(program: str) -> str:
    """What `qemu --version` says first, package revision included."""
    return run([program, "--version"], timeout=30).stdout.splitlines()[0]


def make(spec: MachineSpec, store: Store, inspect: Inspect | None = None) -> Artifact:
    """The snapshot for a spec; booted and frozen now if the store has none.

    Args:
        spec: what to clone later.
        store: where snapshots are kept.
        inspect: sees the base's spec and kernel log before it is frozen.

    Raises:
        Unfit: the base must not be frozen: it splatted, is tainted, ...
        LabError: the base did not boot, or the disk is full.
    """
    return store.make("snapshot", inputs(spec), lambda path: _freeze(spec, path, inspect))


def clone(spec: MachineSpec, directory: Path, snapshot: Artifact) -> Machine:
    """A machine that goes on where the snapshot was frozen.

    Raises:
        InfraError: QEMU did not take it.
        GuestSilent: the clone does not answer.
    """
    memory = Memory(file=snapshot.path / "memory", frozen=True)
    started = boot.assemble(spec, directory, memory=memory)
    started.qemu.history = plain((snapshot.path / "console.log").read_bytes())
    boot.guarded(started, _resume(started, spec, snapshot.path / "state"))
    return started.machine(spec, cloned=True)


def _freeze(spec: MachineSpec, path: Path, inspect: Inspect | None) -> None:
    base = replace(shape(spec), patience=spec.patience)
    started = boot.assemble(base, path, memory=Memory(file=path / "memory", frozen=False))
    boot.guarded(started, boot.awake(started, base))
    machine = started.machine(base)
    try:
        boot.prepare(machine)
        # What a first command touches shall be in the guest's page cache.
        machine.succeed("true")
        loop.call(wake(started.executor, base))
        loop.call(started.executor.spare(timeout=SPARE_TIMEOUT * spec.patience))
        _examine(machine, inspect)
        loop.call(_save(started, path / "state"))
    finally:
        machine.stop()


def _examine(machine: Machine, inspect: Inspect | None) -> None:
    """Stop it; refuse what a clone must not inherit.

    The last that the guest does: whatever it said of the steps before is heard.
    """
    # With an input, for else a shell would take it that waits for a clone's command.
    done = machine.execute(_LAST_WORDS, input="")
    if done.status != 0:
        raise Unfit(f"it cannot be examined: {done.stderr.strip()}")
    _await_mark(machine)
    machine.body.monitor("stop")
    reason = inspect(machine.spec, machine.kernel_log()) if inspect is not None else None
    if reason is not None:
        raise Unfit(f"its log holds a splat: {reason}")
    taint, _, stats = done.stdout.partition("\n")
    if lockdep.turned_off(stats):
        raise Unfit("lockdep has turned itself off")
    if int(taint) & ~HARMLESS_TAINT:
        raise Unfit(f"its kernel is tainted ({taint})")


def _await_mark(machine: Machine) -> None:
    limit = ECHO_TIMEOUT * machine.spec.patience
    deadline = time.monotonic() + limit
    while MARK not in machine.kernel_log():
        if time.monotonic() > deadline:
            raise Unfit(f"what it logs does not reach its console within {limit:g} s")
        time.sleep(0.005)


async def _save(started: Started, state: Path) -> None:
    qemu = started.qemu
    await _ignore_memory(started)
    # QEMU 7.2 has no file: migration yet (it came with 8.2).
    await qemu.ask("migrate", {"uri": f"exec:cat > {shlex.quote(str(state))}"})
    await _transferred(started, "completed")


async def _resume(started: Started, spec: MachineSpec, state: Path) -> None:
    qemu = started.qemu
    # The base was frozen with somebody at every port, so take them up before
    # the devices are loaded: a guest that sees a port close stops listening.
    await started.start()
    await _ignore_memory(started)
    await _feed(started, state)
    await _transferred(started, "completed")
    await qemu.ask("cont")
    await wake(started.executor, spec)


async def _feed(started: Started, state: Path) -> None:
    """Give QEMU the devices' state: through a socket, for exec:cat forks a QEMU first.

    A third of the time to load it was the fork's.

    Raises:
        InfraError: the snapshot has none.
    """
    try:
        content = state.read_bytes()
    except OSError as error:
        raise InfraError(f"a snapshot without its state: {error.strerror}", file=state) from error
    socket = started.qemu.places.runtime / "state"
    await started.qemu.ask("migrate-incoming", {"uri": f"unix:{socket}"})
    # Where QEMU does not like it, it hangs up and says why.
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_unix_connection(str(socket))
        writer.write(content)
        await writer.drain()
        writer.close()


async def _ignore_memory(started: Started) -> None:
    capability = {"capability": "x-ignore-shared", "state": True}
    await started.qemu.ask("migrate-set-capabilities", {"capabilities": [capability]})


async def _transferred(started: Started, wanted: str) -> None:
    clock = asyncio.get_running_loop().time
    deadline = clock() + TRANSFER_TIMEOUT
    while True:
        status = (await started.qemu.ask("query-migrate")).get("status")
        if status == wanted:
            return
        if status in ("failed", "cancelled") or clock() > deadline:
            raise InfraError(
                f"{started.qemu.node}: the transfer of the machine's state "
                f"{status or 'did not begin'}: {started.qemu.complaint()}"
            )
        await asyncio.sleep(0.002)


def _identity(file: Path | None) -> Json:
    if file is None:
        return None
    try:
        found = file.stat()
    except OSError as error:
        raise LabError(f"cannot be read: {error.strerror}", file=file) from error
    return [str(file.resolve()), found.st_size, found.st_mtime_ns]
