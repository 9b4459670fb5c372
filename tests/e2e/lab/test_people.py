# SPDX-License-Identifier: GPL-2.0-only
"""What people type: machines that stay, commands, shells and copies, each a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from marks import MARK, kill_marked, marked
from terminal import Terminal

from lab.store import Store
from lab.testing.cell import Cell
from lab.testing.fixtures import KernelInfo
from lab.testing.lease import Leases, charge
from lab.testing.trial import Trial

pytestmark = [pytest.mark.limit(300), pytest.mark.slow]

LAB = (sys.executable, "-m", "lab")
#: Seconds, for a patience of 1, in which any command ends; booting is one of them.
LONG = 150.0
#: Of a store, but for its machines.
SHARED = ("artifacts", "facts", "hot", "locks", "tmp")
#: Prints it when it has been run, not when it was typed.
ANSWER = "answer-$((6 * 7))"
ANSWERED = "answer-42"
PROMPT = "# "


@dataclass
class Person:
    """Somebody who has no machine up yet.

    Attributes:
        options: of `lab up`, for the kernel under test.
    """

    options: tuple[str, ...]
    store: Path
    place: Path
    patience: float
    memory: int
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    terminals: list[Terminal] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        own = {"LAB_CACHE": str(self.store), "XDG_RUNTIME_DIR": str(self.place), MARK: self.mark}
        return {**os.environ, **own}

    def types(self, *words: str | Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run `lab WORDS...` to its end, with something on its standard input."""
        return subprocess.run(
            [*LAB, *map(str, words)],
            env=self.environment, input=given, capture_output=True,
            timeout=LONG * self.patience, check=False,
        )  # fmt: skip

    def sees(self, *words: str | Path) -> str:
        """What a good command prints."""
        done = self.types(*words)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def is_refused(self, *words: str | Path) -> str:
        """The one line that a wrong command prints, once it is seen to be one."""
        done = self.types(*words)
        said = done.stderr.decode()
        assert (done.returncode, done.stdout) == (2, b""), said
        assert said.startswith("lab: "), said
        assert said.count("\n") == 1, said
        return said

    def up(self, *nodes: str) -> str:
        return self.sees("up", *self.options, *nodes)

    def sits_at(self, *words: str | Path) -> Terminal:
        """Start `lab WORDS...` at a terminal."""
        terminal = Terminal(*LAB, *words, environment=self.environment, patience=self.patience)
        self.terminals.append(terminal)
        return terminal

    def has_leased(self) -> set[int]:
        """Processes that lease as much memory as a machine may take in the end."""
        held = Leases(self.store / "leases.json").held()
        return {one.pid for one in held if one.memory == charge(self.memory, lasting=True)}

    def has_left(self) -> list[object]:
        """Processes, sockets and logs of the machines."""
        logs = (path for path in (self.store / "machines").iterdir() if path.is_dir())
        return [*marked(self.mark).items(), *self.place.glob("lunatik-lab/*"), *logs]


@pytest.fixture
def person(
    stage: tuple[str, ...], ours: Cell, place: Path, tmp_path: Path, trial: Trial
) -> Iterator[Person]:
    """Somebody whose store has all that ours has, and machines of its own."""
    store = tmp_path / "store"
    store.mkdir()
    for name in SHARED:
        (store / name).symlink_to(Store().root / name)
    person = Person((*stage, "--accel", ours.accel), store, place, ours.patience, ours.memory)
    # A store has its own ledger. That the host is full is not the test's doing.
    with trial.limit.paused() if trial.limit else nullcontext():
        lease = trial.leases.take(holder=person.mark, memory=2 * charge(ours.memory), cores=2)
    yield person
    for terminal in person.terminals:
        terminal.close()
    if marked(person.mark):
        person.types("down")
    kill_marked(person.mark)
    trial.leases.give_back(lease)


def rows(person: Person) -> dict[str, dict[str, object]]:
    """What `lab status` tells scripts of each machine."""
    return {row["name"]: row for row in json.loads(person.sees("status", "--json"))}


def table(person: Person) -> list[list[str]]:
    """Name and state of each machine, as `lab status` tells people."""
    return [line.split()[:2] for line in person.sees("status").splitlines()]


def test_machines_stay_until_they_are_taken_down(person: Person, kernel: KernelInfo) -> None:
    said = person.up("left", "right")
    assert [line.partition(": ")[0] for line in said.splitlines()] == ["left", "right"]
    assert table(person) == [["left", "up"], ["right", "up"]]
    pids = {name: row["pid"] for name, row in rows(person).items()}
    # Whoever started them is gone, and so is the reaper.
    assert set(marked(person.mark)) == set(pids.values())
    assert person.has_leased() == set(pids.values())
    for node in ("left", "right"):
        assert person.sees("exec", node, "hostname; uname -r") == f"{node}\n{kernel.version}\n"
    assert "right is up already" in person.is_refused("up", *person.options, "right")
    person.sees("down", "left")
    assert set(marked(person.mark)) == {pids["right"]}
    assert person.has_leased() == {pids["right"]}
    assert table(person) == [["right", "up"]]
    assert person.sees("exec", "right", "hostname") == "right\n"
    person.sees("down")
    assert table(person) == []
    assert not person.has_left()


def test_machine_that_ended_by_itself(person: Person) -> None:
    person.up("left")
    done = person.types("exec", "left", "--", "poweroff", "-f")
    assert done.returncode == 125
    assert table(person) == [["left", "ended"]]
    assert "left has ended by itself; see " in person.is_refused("ssh", "left")
    person.up("left")
    assert table(person) == [["left", "up"]]
    person.sees("down", "left")
    assert not person.has_left()


def test_exec(person: Person) -> None:
    person.up("left")
    done = person.types("exec", "left", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    # Words stay words; a single one is a line of shell.
    assert person.sees("exec", "left", "--", "printf", "%s|", "a b", "$HOME", "") == "a b|$HOME||"
    assert person.sees("exec", "left", "echo $HOME") == "/root\n"
    every = bytes(range(256))
    assert person.types("exec", "-i", "left", "--", "cat", given=every).stdout == every
    assert person.types("exec", "left", "--", "cat", given=every).stdout == b""
    late = person.types("exec", "--timeout", "1", "left", "--", "sleep", "600")
    assert (late.returncode, late.stderr.count(b"\n")) == (125, 1), late.stderr
    assert person.types("exec", "left", "--", "pgrep", "sleep").returncode == 1


def test_control_c_ends_a_command_there_too(person: Person) -> None:
    person.up("left")
    terminal = person.sits_at("exec", "left", "--", "sleep", "600")
    deadline = time.monotonic() + LONG * person.patience
    while person.types("exec", "left", "--", "pgrep", "sleep").returncode != 0:
        assert time.monotonic() < deadline
    terminal.type("\x03")
    assert terminal.ended() == 128 + signal.SIGINT
    assert person.types("exec", "left", "--", "pgrep", "sleep").returncode == 1


def has_size(rows: int, columns: int) -> str:
    """A line of shell that answers once the guest's terminal is so large."""
    return f'until [ "$(stty size)" = "{rows} {columns}" ]; do sleep 0.1; done; echo {ANSWER}\n'


def test_shell(person: Person) -> None:
    person.up("left")
    shell = person.sits_at("shell", "left")
    shell.resize(rows=33, columns=101)
    shell.expect(PROMPT)
    shell.type(has_size(33, 101))
    shell.expect(ANSWERED)
    # A window that is drawn larger while a program runs in it.
    shell.type(has_size(53, 121))
    for more in range(1, 21):
        shell.resize(rows=33 + more, columns=101 + more)
        time.sleep(0.02)
    shell.expect(ANSWERED)
    shell.type(f"memory=kept; sh -c 'echo {ANSWER}; exec sleep 600'\n")
    shell.expect(ANSWERED)
    shell.type("\x03")
    shell.expect(PROMPT)
    shell.type("echo status-$?\n")
    assert shell.expect(r"status-(\d+)")[1] == str(128 + signal.SIGINT)

    second = person.sits_at("shell", "left")
    second.expect("lab: somebody's shell is on left already; ")
    assert second.ended() == 2

    shell.type("\x1d")  # Control-]
    assert shell.ended() == 0
    assert shell.echoes(), "the terminal was not given back as it was"
    # It was left, not ended.
    again = person.sits_at("shell", "left")
    again.expect(PROMPT)
    again.type("echo memory-$memory\n")
    again.expect("memory-kept")
    person.sees("down", "left")
    again.expect("lab: the machine is gone")
    assert again.ended() == 4
    assert again.echoes()


def test_ssh(person: Person) -> None:
    person.up("left")
    done = person.types("ssh", "left", "--", "echo out; echo err >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")
    assert person.types("ssh", "left", "--", "cat", given=b"\0\xff").stdout == b"\0\xff"
    shell = person.sits_at("ssh", "left")
    shell.expect(PROMPT)
    shell.type(has_size(33, 101))
    shell.resize(rows=33, columns=101)
    shell.expect(ANSWERED)
    shell.type("exit 7\n")
    assert shell.ended() == 7


def test_copies_come_back_equal(person: Person, tmp_path: Path) -> None:
    person.up("left")
    files = {
        "plain": (0o644, b"text\n"),
        "program": (0o751, os.urandom(300_000)),
        "below/two/empty": (0o400, b""),
        "below/with {braces} and blanks": (0o600, bytes(range(256))),
    }
    home = tmp_path / "home"
    for name, (mode, data) in files.items():
        file = home / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
        file.chmod(mode)
    person.sees("put", "left", home, "/root/whole")
    for number, (name, expected) in enumerate(files.items()):
        there = f"/root/single-{number}"
        person.sees("put", "left", home / name, there)
        for source in (there, f"/root/whole/{name}"):
            back = tmp_path / "back"
            person.sees("get", "left", source, back)
            assert (back.stat().st_mode & 0o7777, back.read_bytes()) == expected, source
            back.unlink()
    # The modes are the guest's too, not only our files' own.
    assert person.sees("exec", "left", "--", "stat", "-c", "%a %s", "/root/single-1") == (
        "751 300000\n"
    )
    person.sees("get", "left", "/root/whole/plain", tmp_path)
    assert (tmp_path / "plain").read_bytes() == b"text\n"
    assert "No such file" in person.is_refused("get", "left", "/root/nothing", tmp_path / "back")
    assert "No such file" in person.is_refused("put", "left", home / "plain", "/nowhere/plain")
    assert "no such file" in person.is_refused("put", "left", tmp_path / "nothing", "/root/x")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "plain", "store"]


def test_wrong_words_are_one_line(person: Person, tmp_path: Path) -> None:
    nobody = "no machine `nobody` is up"
    for words in (
        ("down", "nobody"),
        ("ssh", "nobody", "--", "true"),
        ("put", "nobody", __file__, "/root/x"),
        ("get", "nobody", "/etc/passwd", tmp_path / "x"),
        ("shell", "nobody"),
    ):
        assert nobody in person.is_refused(*words)
    # A guest's command may end with 2 itself.
    done = person.types("exec", "nobody", "--", "true")
    assert (done.returncode, done.stdout) == (125, b"")
    assert done.stderr == f"lab: {nobody}; lab up nobody\n".encode()
    assert "`No!` cannot be a machine's name" in person.is_refused("up", *person.options, "No!")
    assert not person.has_left()
