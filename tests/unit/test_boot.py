# SPDX-License-Identifier: GPL-2.0-only
"""What is done to a machine before anybody gets it: no guest runs here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.vm import boot
from lab.vm.errors import CommandFailed
from lab.vm.spec import MachineSpec


class Booting:
    """A machine that is booted, and what is done to it in turn."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.fails = False
        self.qemu = SimpleNamespace(stop=lambda: self.done.append("stop"))
        self.spec: MachineSpec | None = None

    async def start(self) -> None:
        self.done.append("start")

    def machine(self, spec: MachineSpec) -> Booting:
        self.spec = spec
        return self

    def stop(self) -> None:
        self.done.append("stop")

    def succeed(self, command: str, *, timeout: float) -> str:
        assert timeout > 0
        self.done.append(command)
        if self.fails:
            raise CommandFailed(node="a", command=command, status=1, stdout="", stderr="")
        return ""


@pytest.fixture
def booting(monkeypatch: pytest.MonkeyPatch) -> Booting:
    it = Booting()

    async def awake(started: Booting, _: object) -> None:
        started.done.append("awake")

    monkeypatch.setattr(boot, "assemble", lambda *_, **__: it)
    monkeypatch.setattr(boot, "awake", awake)
    return it


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    return MachineSpec(name="a", kernel=tmp_path, root=tmp_path, prepare=("modprobe lunatik",))


@pytest.mark.parametrize(
    ("gdb", "began"), [(None, "awake"), (Path("/gdb"), "start")], ids=["alone", "gdb"]
)
def test_it_is_prepared(
    booting: Booting, spec: MachineSpec, tmp_path: Path, gdb: Path | None, began: str
) -> None:
    machine: Any = boot.boot(replace(spec, gdb=gdb), tmp_path)
    assert machine is booting
    assert booting.done == [began, "modprobe lunatik"]


def test_what_cannot_be_prepared_is_ended(
    booting: Booting, spec: MachineSpec, tmp_path: Path
) -> None:
    booting.fails = True
    with pytest.raises(CommandFailed):
        boot.boot(spec, tmp_path)
    assert booting.done == ["awake", "modprobe lunatik", "stop"]


def test_under_gdb_a_machine_without_preparation_is_not_waited_for(
    booting: Booting, spec: MachineSpec, tmp_path: Path
) -> None:
    boot.boot(replace(spec, gdb=Path("/gdb"), prepare=()), tmp_path)
    assert booting.done == ["start"]
