# SPDX-License-Identifier: GPL-2.0-only
"""The sessions of noxfile.py hand the right statuses to ./run; nox is played."""

from __future__ import annotations

import runpy
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

NOXFILE = Path(__file__).resolve().parents[2] / "noxfile.py"


class CommandFailed(Exception):
    """Plays nox's."""


@dataclass
class Session:
    """Plays nox's: remembers what was run, and where pip is concerned may fail."""

    location: Path
    works: bool = True
    posargs: tuple[str, ...] = ()
    calls: list[tuple[tuple[str, ...], dict[str, str]]] = field(default_factory=list)

    @property
    def virtualenv(self) -> SimpleNamespace:
        return SimpleNamespace(location=str(self.location))

    def chdir(self, _: str) -> AbstractContextManager[None]:
        return nullcontext()

    def run(self, *argv: str, env: dict[str, str], **_: object) -> None:
        self.calls.append((argv, env))
        if "pip" in argv and not self.works:
            raise CommandFailed


@pytest.fixture
def noxfile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of noxfile.py, loaded as ./run has it loaded."""
    nox, command = ModuleType("nox"), ModuleType("nox.command")

    def session(function: Callable[..., None]) -> Callable[..., None]:
        return function

    nox.__dict__.update(session=session, options=SimpleNamespace(), Session=Session)
    command.__dict__.update(CommandFailed=CommandFailed)
    monkeypatch.setitem(sys.modules, "nox", nox)
    monkeypatch.setitem(sys.modules, "nox.command", command)
    monkeypatch.setenv("LAB_STATUS_FILE", str(tmp_path / "status"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "nox"))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return runpy.run_path(str(NOXFILE))


def test_pip_without_a_network_is_the_hosts_lack(tmp_path: Path, noxfile: dict[str, Any]) -> None:
    session = Session(tmp_path, works=False)
    with pytest.raises(CommandFailed):
        noxfile["prepare"](session)
    assert (tmp_path / "status").read_text() == "3\n"
    session.works = True
    noxfile["prepare"](session)  # what was half installed is not taken for whole
    assert len(session.calls) == 2


def test_what_is_installed_is_left_alone(tmp_path: Path, noxfile: dict[str, Any]) -> None:
    session = Session(tmp_path)
    noxfile["prepare"](session)
    noxfile["prepare"](session)
    assert len(session.calls) == 1
    assert not (tmp_path / "status").exists()


def test_guests_scripts_are_found(noxfile: dict[str, Any]) -> None:
    found = noxfile["guest_scripts"]()
    assert "lunatik-src/tools/bin/lunatik" in found
    assert "vm-images/box/usr/lib/lab/boot" in found


TESTS = str(NOXFILE.parent / "tests" / "e2e")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), False),
        (("--provider", "vagrant"), True),
        (("--provider=vagrant", "tests/e2e/smoke"), True),
        (("--provider", "qemu"), False),
        (("-x", "tests/e2e/vagrant"), True),
        (("tests/e2e/vagrant/no_such_file.py::test_x[vagrant]",), False),
        ((f"{TESTS}/vagrant/conftest.py::test_x",), True),
        ((f"{TESTS}/smoke/../vagrant",), True),
        (("-k", "not vagrant"), False),
        (("-k", "vagrant"), False),
        (("-k", "tests/e2e/vagrant"), False),
        (("--deselect", "tests/e2e/vagrant"), False),
        (("--kernel", "/home/vagrant/linux"), False),
        (("tests/e2e/smoke::test_vagrant",), False),
    ],
)
def test_libvirt_is_for_those_who_want_it(
    tmp_path: Path, noxfile: dict[str, Any], words: tuple[str, ...], wanted: bool
) -> None:
    session = Session(tmp_path, posargs=words)
    noxfile["e2e"](session)
    (doctor,) = [argv for argv, _ in session.calls if "doctor" in argv]
    assert doctor[1:] == ("doctor", "--install", *(("--for", "vagrant") if wanted else ()))


def test_a_test_of_vagrants_by_a_path_of_the_users(
    noxfile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = noxfile["is_of_vagrant"].__globals__
    monkeypatch.setitem(names, "CALLED_FROM", TESTS)
    assert noxfile["wants_vagrant"](["vagrant"])
    assert not noxfile["wants_vagrant"](["-k", "vagrant"])
    monkeypatch.setitem(names, "CALLED_FROM", f"{TESTS}/vagrant")
    assert not noxfile["wants_vagrant"](["--flavour", "debug"])


def test_mutations_tell_their_status(tmp_path: Path, noxfile: dict[str, Any]) -> None:
    session = Session(tmp_path)
    noxfile["mutate"](session)
    argv, env = session.calls[-1]
    assert argv[1:] == ("-m", "lab.testing.mutate")
    assert env["LAB_STATUS_FILE"] == str(tmp_path / "status")


def test_a_signal_to_nox_ends_what_it_runs(noxfile: dict[str, Any]) -> None:
    """As `kill` of ./run alone sends it."""
    with subprocess.Popen(["sleep", "60"]) as running:
        noxfile["hand_on"](signal.SIGTERM, None)
        assert running.wait(10) == -signal.SIGTERM


def test_a_signal_to_nox_that_runs_nothing_ends_it(
    noxfile: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: "")
    with pytest.raises(KeyboardInterrupt):
        noxfile["hand_on"](signal.SIGTERM, None)
