# SPDX-License-Identifier: GPL-2.0-only
"""One of Vagrant's machines while a test has it: its console, its QEMU, its end."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient, QMPError
from qemu.qmp.qmp_client import ExecuteError

from lab.errors import InfraError, LabError
from lab.vm import loop, reaper
from lab.vm.errors import GuestPanicked, MachineDied
from lab.vm.qemu import LAST_WORDS, plain
from lab.vm.spec import Dgram, Nic, Stream, Vde

#: Seconds between two looks at the console's file.
POLL = 0.02

PANIC = re.compile(r"Kernel panic - not syncing: .*")


class Domain:
    """The libvirt domain behind a machine; a `Body`.

    Args:
        node: the machine's name, for messages.
        pid: of its QEMU.
        console: the file that its serial port writes to.
        begin: where in it the machine's own words begin; where it ends now if None.
        history: what the kernel wrote before that.
        directory: gets console.log and kernel.log.
        monitor: QMP socket of our own.
        wires: directory for the sockets of its cards.
        release: told when the machine is done with.
    """

    def __init__(
        self,
        *,
        node: str,
        pid: int,
        console: Path,
        begin: int | None,
        history: str,
        directory: Path,
        monitor: Path,
        wires: Path,
        release: Callable[[Domain], None],
    ) -> None:
        self.node = node
        self.expected = False
        self.directory = directory
        self._pid = pid
        self._born = reaper.start_time(pid)
        self._history = history
        self._monitor = monitor
        self._wires = wires
        self._release = release
        self._lock = threading.Lock()
        self._stopped = False
        self._panicked_at: float | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._copy = _Copy(console, directory / "console.log", begin)
        self._write_argv()

    @property
    def pid(self) -> int | None:
        """QEMU's."""
        return self._pid

    def alive(self) -> bool:
        """Whether its QEMU runs and it is not done with."""
        return not self._stopped and reaper.start_time(self._pid) == self._born

    def console(self) -> str:
        """What the kernel has written since the machine was restored."""
        return self._copy.text()

    def lost(self) -> LabError | None:
        """Why the machine is lost, or None."""
        if self._stopped:
            return MachineDied(f"{self.node}: the machine was stopped", reason="stopped")
        found = PANIC.search(self._copy.tail())
        if found is not None:
            # The kernel has a moment to print its trace.
            self._panicked_at = self._panicked_at or time.monotonic()
            if time.monotonic() - self._panicked_at > LAST_WORDS:
                return GuestPanicked(f"{self.node}: {found[0].strip()}")
        if not self.alive():
            how = "the machine was stopped" if self.expected else "its QEMU ended"
            reason = "stopped" if self.expected else "qemu"
            return MachineDied(f"{self.node}: {how}", reason=reason)
        return None

    def monitor(self, command: str, **arguments: object) -> Any:
        """One QMP command, over a monitor that libvirt knows nothing of.

        Raises:
            InfraError: QEMU refused it or is gone.
        """
        return loop.call(self._ask(command, arguments))

    def plug(self, cards: tuple[Nic, ...]) -> None:
        """Put wires into the cards that have one."""
        for number, nic in enumerate(cards):
            wire = _netdev(number, nic, self._wires)
            if wire is None:
                continue
            self.monitor("netdev_add", **wire)
            # A hub joins the wire with the card, which was there first.
            port = {"type": "hubport", "id": f"plug{number}"}
            self.monitor("netdev_add", **port, hubid=number + 1, netdev=wire["id"])

    def expect_end(self) -> None:
        """From now on its end is no accident."""
        self.expected = True

    def wait(self, timeout: float) -> bool:
        """Whether it ended by itself within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self.alive() and time.monotonic() < deadline:
            time.sleep(POLL)
        return not self.alive()

    def stop(self) -> None:
        """Be done with it: it goes back to where it came from. Twice is fine."""
        with self._lock:
            if self._stopped:
                return
            self.expected = True
            self._stopped = True
        # It is restored when it is next wanted; until then it shall take no time.
        with contextlib.suppress(LabError):
            self.monitor("stop")
        self._copy.finish()
        (self.directory / "kernel.log").write_text(self._history + self.console())
        self._release(self)

    def _write_argv(self) -> None:
        with contextlib.suppress(OSError):
            raw = Path(f"/proc/{self._pid}/cmdline").read_text(errors="replace")
            (self.directory / "argv").write_text(shlex.join(raw.rstrip("\0").split("\0")) + "\n")

    async def _ask(self, command: str, arguments: dict[str, object]) -> Any:
        client = QMPClient(self.node)
        try:
            await client.connect(str(self._monitor))
            return await client.execute(command, arguments)
        except ExecuteError as error:
            raise InfraError(f"{self.node}: QEMU refused {command}: {error}") from error
        except (QMPError, OSError, EOFError) as error:
            reason = self.lost()
            raise (reason or InfraError(f"{self.node}: QEMU's monitor does not answer")) from error
        finally:
            with contextlib.suppress(QMPError, OSError, EOFError):
                await client.disconnect()


class _Copy:
    """Carries what a console's file gains over to a test's own, as it comes."""

    def __init__(self, source: Path, target: Path, begin: int | None) -> None:
        self._source = source
        self._target = target
        self._at = source.stat().st_size if begin is None else begin
        self._tail = ""
        self._lock = threading.Lock()
        self._end = threading.Event()
        target.touch()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def text(self) -> str:
        self._move()
        return plain(self._target.read_bytes())

    def tail(self) -> str:
        """The last lines, enough for a panic's report."""
        return self._tail

    def finish(self) -> None:
        self._end.set()
        self._thread.join()
        self._move()

    def _run(self) -> None:
        while not self._end.wait(POLL):
            self._move()

    def _move(self) -> None:
        with self._lock, contextlib.suppress(OSError):
            size = self._source.stat().st_size
            if size < self._at:
                self._at = 0  # it was begun anew
            if size == self._at:
                return
            with self._source.open("rb") as file:
                file.seek(self._at)
                data = file.read(size - self._at)
            self._at += len(data)
            with self._target.open("ab") as file:
                file.write(data)
            self._tail = (self._tail + data.decode(errors="replace"))[-65536:]


def _netdev(number: int, nic: Nic, wires: Path) -> dict[str, Any] | None:
    """What QEMU makes a card's wire from; None for a card that has none.

    Sockets lie where the user that runs QEMU may make them; both ends find the
    same place from the same path.
    """
    name = f"wire{number}"
    match nic.wire:
        case Dgram(local=local, remote=remote):
            ends = {"local": _socket(wires, local), "remote": _socket(wires, remote)}
            return {"type": "dgram", "id": name} | {
                end: {"type": "unix", "path": str(path)} for end, path in ends.items()
            }
        case Stream(path=path, server=server):
            address = {"type": "unix", "path": str(_socket(wires, path))}
            return {"type": "stream", "id": name, "addr": address, "server": server}
        case Vde(path=path):
            return {"type": "vde", "id": name, "sock": str(path)}
        case _:
            return None


def _socket(wires: Path, path: Path) -> Path:
    return wires / hashlib.sha256(str(path).encode()).hexdigest()[:16]
