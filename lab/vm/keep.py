# SPDX-License-Identifier: GPL-2.0-only
"""Machines that outlive the command that started them: `lab up`.

What is known of each stands in `<store>/machines/<name>/machine.json`.  The
process is told from any later one with its id by the time it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from qemu.qmp import QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from lab.errors import InfraError, LabError, UserError
from lab.store import Store
from lab.vm import boot, loop, reaper, runtime
from lab.vm.argv import Places
from lab.vm.channel import AgentChannel
from lab.vm.errors import MachineDied
from lab.vm.machine import Machine
from lab.vm.qemu import Qemu, plain
from lab.vm.spec import MachineSpec

#: Bytes of any file that a kept QEMU may write: nobody watches its console.
FILE_LIMIT = 256 * 1024 * 1024

#: What a machine may be called: a host name, and part of file names.
NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")

#: Seconds for QEMU to be gone after it was killed.
END_TIMEOUT = 10.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A machine that `lab up` has started.

    Attributes:
        name: of the node.
        label: what it runs, for people: kernel and flavour.
        pid, started: the process.
        since: seconds since the epoch.
        directory: its logs.
        sockets: its sockets.
        ssh_port: on the host's loopback.
        patience: as in its spec.
        memory: MiB.
    """

    name: str
    label: str
    pid: int
    started: int
    since: float
    directory: Path
    sockets: Path
    ssh_port: int
    patience: float
    memory: int

    @property
    def places(self) -> Places:
        """Where its files are."""
        return Places(directory=self.directory, runtime=self.sockets)

    def alive(self) -> bool:
        """Whether its QEMU runs."""
        return reaper.start_time(self.pid) == self.started

    def as_json(self) -> dict[str, Any]:
        """For machine.json and `lab status --json`."""
        row = dataclasses.asdict(self)
        return {**row, "directory": str(self.directory), "sockets": str(self.sockets)}


class Keep:
    """All kept machines of one store."""

    def __init__(self, store: Store) -> None:
        self.root = store.root / "machines"
        self.root.mkdir(parents=True, exist_ok=True)

    def up(self, spec: MachineSpec, *, label: str) -> Kept:
        """Boot a machine and let it live on.

        Args:
            spec: what it is; it gets a card for ssh.
            label: what it runs, for people.

        Raises:
            UserError: one of this name is up already.
            LabError: it did not come up; as boot().
        """
        spec = dataclasses.replace(spec, ssh_port=0)
        directory = self.root / spec.name
        with FileLock(self.root / f"{spec.name}.lock"):
            self.refuse_running([spec.name])
            self._forget(spec.name, self._load(directory))
            sockets = self._sockets(spec.name)
            with _half_made(directory):
                machine = boot.boot(spec, directory, sockets=sockets)
                try:
                    kept = self._adopt(machine, label, sockets)
                except BaseException:
                    machine.stop()
                    raise
            _detach(machine)
            runtime.disown(sockets)
            runtime.runtime().reaper.keep_directory(sockets)
        return kept

    def refuse_running(self, names: Iterable[str]) -> None:
        """See that machines can be started under these names.

        Raises:
            UserError: one is up already.
        """
        for name in names:
            old = self._find(name)
            if old is not None and old.alive():
                raise UserError(f"{name} is up already", right=f"lab down {name}")

    def all(self) -> list[Kept]:
        """Every machine that was put up and not taken down, by name."""
        found = (self._load(path) for path in sorted(self.root.iterdir()) if path.is_dir())
        return [kept for kept in found if kept is not None]

    def get(self, name: str) -> Kept:
        """A running machine by name.

        Raises:
            UserError: there is none.
        """
        kept = self._find(name)
        if kept is None:
            names = ", ".join(one.name for one in self.all())
            raise UserError(
                f"no machine `{name}` is up",
                right=f"up are: {names}" if names else f"lab up {name}",
            )
        if not kept.alive():
            raise UserError(
                f"{name} has ended by itself; see {kept.directory}/console.log",
                right=f"lab down {name}, then lab up {name}",
            )
        return kept

    def down(self, name: str) -> None:
        """End a machine and forget it; its logs go too.

        Raises:
            UserError: there is none of this name.
            InfraError: it does not go.
        """
        self._known(name)  # before its lock, which is a file of that name
        with FileLock(self.root / f"{name}.lock"):
            kept = self._known(name)
            _end(kept)
            self._forget(name, kept)

    def _known(self, name: str) -> Kept:
        kept = self._find(name)
        if kept is None:
            raise UserError(f"no machine `{name}` is up", right="see lab status")
        return kept

    def _find(self, name: str) -> Kept | None:
        """What is known of a machine; nothing under what is no name, such as a path."""
        return self._load(self.root / name) if NAME.fullmatch(name) else None

    def _adopt(self, machine: Machine, label: str, sockets: Path) -> Kept:
        pid = machine.body.pid
        started = None if pid is None else reaper.start_time(pid)
        if pid is None or started is None:
            raise MachineDied(f"{machine.name}: QEMU ended", reason="qemu")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (FILE_LIMIT, FILE_LIMIT))
        kept = Kept(
            name=machine.name,
            label=label,
            pid=pid,
            started=started,
            since=time.time(),
            directory=machine.directory,
            sockets=sockets,
            ssh_port=_ssh_port(machine),
            patience=machine.spec.patience,
            memory=machine.spec.memory,
        )
        state = machine.directory / "machine.json"
        new = state.with_suffix(".new")
        new.write_text(json.dumps(kept.as_json(), indent=1))
        new.replace(state)
        return kept

    def _sockets(self, name: str) -> Path:
        """A short path that is this store's and this name's alone."""
        path = runtime.base() / self._mark(name)
        # What a lab that was killed with its reaper has left is in nobody's record.
        runtime.settle(path)
        # Until the machine is detached, it goes if we go.
        runtime.runtime().reaper.adopt_directory(path)
        path.mkdir(mode=0o700)
        runtime.own(path)
        return path

    def _mark(self, name: str) -> str:
        return runtime.KEPT + hashlib.sha256(f"{self.root}/{name}".encode()).hexdigest()[:10]

    def _forget(self, name: str, kept: Kept | None) -> None:
        # Nothing but what _sockets() made, whatever a record names.
        if kept is not None and kept.sockets.name == self._mark(name):
            shutil.rmtree(kept.sockets, ignore_errors=True)
        shutil.rmtree(self.root / name, ignore_errors=True)

    def _load(self, directory: Path) -> Kept | None:
        try:
            row = json.loads((directory / "machine.json").read_text())
            return Kept(
                **{**row, "directory": Path(row["directory"]), "sockets": Path(row["sockets"])}
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None


def attach(kept: Kept) -> Machine:
    """A kept machine in the words of a test; several processes may do so at once."""
    body = _Attached(kept)
    channel = AgentChannel(
        node=kept.name,
        socket=kept.places.agent,
        patience=kept.patience,
        doom=body.doom,
        shared=True,
    )
    body.channel = channel
    spec = MachineSpec(
        name=kept.name, kernel=Path("/"), root=Path("/"), patience=kept.patience, memory=kept.memory
    )
    return Machine(spec=spec, directory=kept.directory, channel=channel, body=body)


class _Attached:
    """The QEMU of a kept machine, seen from another process than its starter."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.expected = False
        self.channel: AgentChannel | None = None
        self.doom: asyncio.Future[LabError] = loop.call(self._watch())

    async def _watch(self) -> asyncio.Future[LabError]:
        doom: asyncio.Future[LabError] = asyncio.get_running_loop().create_future()
        self._watcher = asyncio.ensure_future(self._await_death(doom))
        return doom

    async def _await_death(self, doom: asyncio.Future[LabError]) -> None:
        while self.kept.alive():
            await asyncio.sleep(0.2)
        if not doom.done():
            doom.set_result(MachineDied(f"{self.kept.name}: QEMU has ended", reason="qemu"))

    @property
    def pid(self) -> int | None:
        return self.kept.pid

    def alive(self) -> bool:
        return self.kept.alive()

    def console(self) -> str:
        return plain(self.kept.places.console.read_bytes())

    def monitor(self, command: str, **arguments: object) -> Any:
        return loop.call(self._ask(command, arguments))

    async def _ask(self, command: str, arguments: dict[str, object]) -> Any:
        client = QMPClient(self.kept.name)
        try:
            await client.connect(str(self.kept.places.monitor))
            return await client.execute(command, arguments)
        except ExecuteError as error:
            raise InfraError(f"{self.kept.name}: QEMU refused {command}: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            raise InfraError(f"{self.kept.name}: QEMU's monitor does not answer") from error
        finally:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await client.disconnect()

    def expect_end(self) -> None:
        self.expected = True

    def wait(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while self.alive() and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.alive()

    def stop(self) -> None:
        _end(self.kept)


@contextlib.contextmanager
def _half_made(directory: Path) -> Iterator[None]:
    """Of a machine that did not come up only the log stays, and only if it says something."""
    try:
        yield
    except BaseException as error:
        log = Places(directory=directory, runtime=directory).console
        if isinstance(error, LabError) and log.is_file() and log.stat().st_size:
            error.right = error.right or f"its console is in {log}"
        else:
            shutil.rmtree(directory, ignore_errors=True)
        raise


def _end(kept: Kept) -> None:
    deadline = time.monotonic() + END_TIMEOUT
    while kept.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(kept.pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise InfraError(f"{kept.name}: QEMU (process {kept.pid}) does not end")
        time.sleep(0.02)


def _detach(machine: Machine) -> None:
    body = machine.body
    assert isinstance(body, Qemu)
    body.detach()


def _ssh_port(machine: Machine) -> int:
    """The port that QEMU picked; it is shown to people only."""
    table: str = machine.body.monitor("human-monitor-command", **{"command-line": "info usernet"})
    for line in table.splitlines():
        words = line.split()
        if words and words[0] == "TCP[HOST_FORWARD]":
            return int(words[3])
    raise InfraError(f"{machine.name}: QEMU forwards no port to the guest's sshd")
