# SPDX-License-Identifier: GPL-2.0-only
"""What a snapshot's key depends on, who gets one, and what a refusal leads to."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lab.errors import HostError, InfraError, LabError
from lab.provider import qemu as provider
from lab.provider.qemu import QemuProvider
from lab.store import Artifact, Store, key
from lab.vm import argv, snapshot
from lab.vm.argv import Places
from lab.vm.errors import ConsoleFlooded, GuestPanicked, MachineDied
from lab.vm.machine import Completed, Machine
from lab.vm.qemu import Qemu
from lab.vm.spec import Dgram, MachineSpec, Nic


@pytest.fixture(autouse=True)
def _qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(argv, "program", lambda: "/usr/bin/qemu-system-x86_64")
    monkeypatch.setattr(snapshot, "qemu_version", lambda _: "QEMU emulator version 7.2.22")


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    for name in ("bzImage", "root.erofs", "payload.erofs"):
        (tmp_path / name).write_bytes(name.encode())
    return MachineSpec(
        name="a",
        kernel=tmp_path / "bzImage",
        root=tmp_path / "root.erofs",
        payload=tmp_path / "payload.erofs",
    )


def name(spec: MachineSpec) -> str:
    return key(snapshot.inputs(spec))


def test_what_a_clone_gets_anew_does_not_count(spec: MachineSpec) -> None:
    wired = Nic(
        mac="52:54:00:00:00:01",
        wire=Dgram(local=Path("/a"), remote=Path("/b")),
        capture=Path("/c.pcap"),
    )
    assert name(replace(spec, name="b", nics=(wired,), patience=4)) == name(spec)


@pytest.mark.parametrize(
    "change",
    [
        {"memory": 1024},
        {"cpus": 2},
        {"cpu": "Westmere"},
        {"accel": "kvm"},
        {"single_thread": True},
        {"cmdline": ("slub_debug=FZ",)},
        {"prepare": ("modprobe lunatik",)},
        {"payload": None},
        {"nics": tuple(Nic() for _ in range(5))},
        {"ssh_port": 2222},
    ],
)
def test_what_a_guest_is_counts(spec: MachineSpec, change: dict[str, object]) -> None:
    assert name(replace(spec, **change)) != name(spec)  # type: ignore[arg-type]


def test_any_free_port_is_one_shape(spec: MachineSpec) -> None:
    assert name(replace(spec, ssh_port=2222)) == name(replace(spec, ssh_port=2223))


def test_another_kernel_in_the_same_place_counts(spec: MachineSpec) -> None:
    before = name(spec)
    os.utime(spec.kernel, ns=(1, 1))
    assert name(spec) != before


def test_another_qemu_counts(spec: MachineSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name(spec)
    monkeypatch.setattr(snapshot, "qemu_version", lambda _: "QEMU emulator version 10.0.2")
    assert name(spec) != before


@pytest.mark.parametrize("change", [{"icount": True}, {"gdb": Path("/g")}])
def test_some_machines_are_never_cloned(spec: MachineSpec, change: dict[str, object]) -> None:
    assert snapshot.clonable(spec) is None
    assert snapshot.clonable(replace(spec, **change)) is not None  # type: ignore[arg-type]


def test_a_refusal_is_said_once_and_not_tried_again(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    tries: list[str] = []

    def refuse(spec: MachineSpec, *_: object) -> None:
        tries.append(spec.name)
        raise snapshot.Unfit("its kernel is tainted (512)")

    monkeypatch.setattr(snapshot, "make", refuse)
    monkeypatch.setattr(provider, "note", said.append)
    monkeypatch.setattr(provider, "boot", lambda *_: Mock(cloned=False))
    machines = QemuProvider(store=Store(tmp_path / "store"))
    for name in ("a", "b"):
        assert not machines.start(replace(spec, name=name), tmp_path).cloned
    assert tries == ["a"]
    assert said == ["no snapshot, so machines boot cold: its kernel is tainted (512)"]


Make = Callable[..., Artifact]


def frozen_with(memory: str, made: list[Artifact] | None = None) -> Make:
    """snapshot.make(), for whose snapshots no guest is booted."""

    def freeze(path: Path) -> None:
        (path / "memory").write_text(memory)
        os.utime(path / "memory", (1, 1))

    def make(spec: MachineSpec, store: Store, _: object = None) -> Artifact:
        found = store.make("snapshot", snapshot.inputs(spec), freeze)
        if made is not None:
            made.append(found)
        return found

    return make


@pytest.mark.parametrize(
    "error", [MachineDied("a: QEMU ended", reason="qemu"), GuestPanicked("a panics")]
)
def test_a_torn_snapshot_is_made_again(
    spec: MachineSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: LabError,
) -> None:
    made: list[Artifact] = []

    def clone(_: MachineSpec, __: Path, frozen: Artifact) -> Mock:
        if (frozen.path / "memory").read_text() != "all of it":
            raise error
        return Mock(cloned=True)

    monkeypatch.setattr(snapshot, "make", frozen_with("all of it", made))
    monkeypatch.setattr(snapshot, "clone", clone)
    machines = QemuProvider(store=Store(tmp_path / "store"))
    frozen = machines.freeze(spec)
    assert frozen is not None
    # As a power cut leaves it: nothing in it, but of the right size and time.
    (frozen.path / "memory").write_bytes(bytes(len("all of it")))
    os.utime(frozen.path / "memory", (1, 1))
    assert machines.start(spec, tmp_path).cloned
    assert "memory has other content" in capsys.readouterr().err
    assert (made[-1].path / "memory").read_text() == "all of it"


def test_a_whole_snapshot_is_looked_at_once(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "store")
    look = Mock(wraps=store.discard_if_torn)
    monkeypatch.setattr(store, "discard_if_torn", look)
    monkeypatch.setattr(snapshot, "make", frozen_with("memory"))
    monkeypatch.setattr(snapshot, "clone", Mock(side_effect=InfraError("QEMU refused it")))
    monkeypatch.setattr(provider, "boot", lambda *_: Mock(cloned=False))
    machines = QemuProvider(store=store)
    for _ in range(2):
        assert not machines.start(spec, tmp_path).cloned
    assert look.call_count == 1
    monkeypatch.setattr(snapshot, "clone", Mock(side_effect=HostError("no memory")))
    again = QemuProvider(store=store)
    assert not again.start(spec, tmp_path).cloned
    assert look.call_count == 1, "a host without memory says nothing of the snapshot"


def test_what_was_stopped_is_forgotten(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Qemu] = []

    def boot(spec: MachineSpec, directory: Path) -> Machine:
        argv = ["sleep", "60"]
        qemu = Qemu(node="a", argv=argv, places=Places(directory=directory, runtime=directory))
        started.append(qemu)
        return Machine(spec=spec, directory=directory, channel=Mock(), body=qemu)

    monkeypatch.setattr(provider, "boot", boot)
    machines = QemuProvider()
    first, second = (machines.start(spec, tmp_path) for _ in range(2))
    started[0].stopped = True
    third = machines.start(spec, tmp_path)
    assert machines._machines == [second, third]
    assert first not in machines._machines
    machines.close()
    assert machines._machines == []


def test_a_clone_that_fails_is_booted_cold(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []

    def broken(*_: object) -> None:
        raise InfraError("QEMU refused it")

    monkeypatch.setattr(snapshot, "make", frozen_with("memory"))
    monkeypatch.setattr(snapshot, "clone", broken)
    monkeypatch.setattr(provider, "note", said.append)
    monkeypatch.setattr(provider, "boot", lambda *_: "cold")
    assert QemuProvider(store=Store(tmp_path / "store")).start(spec, tmp_path) == "cold"
    assert said == ["a boots cold, its clone failed: QEMU refused it"]


@pytest.mark.parametrize("error", [GuestPanicked("a panics"), ConsoleFlooded("a floods")])
def test_what_the_kernel_does_in_a_clone_is_not_booted_away(
    spec: MachineSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: InfraError
) -> None:
    def broken(*_: object) -> None:
        raise error

    monkeypatch.setattr(snapshot, "make", frozen_with("memory"))
    monkeypatch.setattr(snapshot, "clone", broken)
    monkeypatch.setattr(provider, "boot", lambda *_: "cold")
    with pytest.raises(type(error)):
        QemuProvider(store=Store(tmp_path / "store")).start(spec, tmp_path)


class Base:
    """A machine that is to be frozen, what it was told, and what of its log has come when."""

    def __init__(
        self,
        spec: MachineSpec,
        *,
        status: int = 0,
        taint: str = "0",
        lockdep: str = "",
        logs: Sequence[str] = (f"its log\n{snapshot.MARK}",),
    ) -> None:
        self.spec = spec
        self.body = self
        self.answer = Completed(status, f"{taint}\n{lockdep}", "no such file")
        self.logs = list(logs)
        self.told: list[str] = []

    def execute(self, command: str, *, input: str) -> Completed:
        """Take note."""
        assert input is not None, "it has taken a shell that waits for a clone's command"
        self.told += command.strip().splitlines()
        return self.answer

    def monitor(self, command: str) -> None:
        """Take note."""
        self.told.append(command)

    def kernel_log(self) -> str:
        """More, each time, until all is there."""
        return self.logs.pop(0) if len(self.logs) > 1 else self.logs[0]


LOCKDEP = " lock-classes:                         1297 [max: 8192]\n debug_locks:   {:20}\n"


def examine(base: Base, inspect: Any = None) -> None:
    snapshot._examine(base, inspect)  # type: ignore[arg-type]


@pytest.mark.parametrize("taint", [0, 1 << 12, 1 << 12 | 1 << 13])
@pytest.mark.parametrize("stats", ["", LOCKDEP.format(1)])
def test_what_is_frozen_has_forgotten_which_warnings_it_gave(
    spec: MachineSpec, taint: int, stats: str
) -> None:
    base = Base(spec, taint=str(taint), lockdep=stats)
    examine(base)
    assert "echo 1 2>/dev/null >/sys/kernel/debug/clear_warn_once" in base.told


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"status": 1}, "it cannot be examined: no such file"),
        ({"lockdep": LOCKDEP.format(0)}, "lockdep has turned itself off"),
        ({"taint": "512"}, r"its kernel is tainted \(512\)"),
        ({"taint": f"{1 << 12 | 1 << 9}"}, r"its kernel is tainted \(4608\)"),
    ],
)
def test_what_a_clone_must_not_inherit(spec: MachineSpec, said: dict[str, Any], why: str) -> None:
    with pytest.raises(snapshot.Unfit, match=why):
        examine(Base(spec, **said))


def test_a_splat_in_its_log_is_told(spec: MachineSpec) -> None:
    with pytest.raises(snapshot.Unfit, match="its log holds a splat: a WARNING"):
        examine(Base(spec), lambda *_: "a WARNING")


def test_its_log_is_judged_when_all_of_it_has_come_and_nothing_more_can(spec: MachineSpec) -> None:
    whole = f"boots\nsplats\n{snapshot.MARK}"
    base = Base(spec, logs=["boots", "boots\nsplats", whole])
    seen: list[object] = []
    examine(base, lambda *said: seen.append((*said, base.told[-1])))
    assert seen == [(spec, whole, "stop")]


def test_a_log_that_does_not_come_is_not_believed(
    spec: MachineSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot, "ECHO_TIMEOUT", 0.02)
    with pytest.raises(snapshot.Unfit, match="does not reach its console"):
        examine(Base(spec, logs=["its log"]))
