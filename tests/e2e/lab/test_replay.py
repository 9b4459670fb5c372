# SPDX-License-Identifier: GPL-2.0-only
"""`lab replay BUNDLE`: the same test again, with a shell or gdb for a person."""

from __future__ import annotations

import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from terminal import ANSWER, Terminal

pytestmark = [pytest.mark.limit(300), pytest.mark.slow]

Runner = Callable[..., Any]

LAB = (sys.executable, "-m", "lab")


@pytest.fixture
def bundle(inner: Runner) -> Path:
    """What a test left that fails, and leaves a trace in its machine."""
    run = inner(
        """
        def test_fails(machine):
            machine.succeed("echo $((6 * 7)) > /run/trace")
            assert machine.name == "somebody else"
        """
    )
    assert run.status == 1
    found = run.directory / "bundles" / "test_inner.test_fails"
    assert found.is_dir()
    return Path(found)


@pytest.fixture
def replay(bundle: Path) -> Iterator[Callable[..., Terminal]]:
    """replay("--shell"): at a terminal."""
    terminals = []

    def start(*options: str) -> Terminal:
        terminals.append(Terminal(*LAB, "replay", bundle, *options))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.close()


def test_the_same_again(bundle: Path) -> None:
    ended = subprocess.run(
        [*LAB, "replay", str(bundle)], capture_output=True, text=True, timeout=200, check=False
    )
    assert ended.returncode == 1, ended.stderr
    assert "somebody else" in ended.stdout + ended.stderr
    assert "1 failed" in ended.stdout


def test_shell_in_the_machine_as_the_test_left_it(replay: Callable[..., Terminal]) -> None:
    person = replay("--shell")
    person.expect(r"machine: a shell before it is ended")
    person.expect(r"# ")
    person.type("echo trace-$(cat /run/trace)\n")
    person.expect(r"trace-42")
    person.type("\x1d")  # Control-]
    assert person.process.wait(60) == 1


def test_shell_wants_a_terminal(bundle: Path) -> None:
    ended = subprocess.run(
        [*LAB, "replay", str(bundle), "--shell"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 2
    assert "a shell needs a terminal" in ended.stderr


def answer(line: socket.socket, request: str) -> str:
    """What gdb's stub says to a packet (protocol: gdb manual, appendix E)."""
    line.sendall(f"${request}#{sum(request.encode()) % 256:02x}".encode())
    data = b""
    while not re.search(rb"\$.*#..", data):
        more = line.recv(4096)
        assert more, data
        data += more
    line.sendall(b"+")
    return data.partition(b"$")[2].partition(b"#")[0].decode()


def test_gdb_sees_the_first_instruction(replay: Callable[..., Terminal]) -> None:
    person = replay("--gdb")
    command = person.expect(r"gdb (\S+/vmlinux) -ex 'target remote (\S+)'")
    assert Path(command[1]).is_file()
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(ANSWER)
        deadline = time.monotonic() + ANSWER
        while line.connect_ex(command[2]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert answer(line, "?").startswith("T05"), "it is stopped"
        # The processor begins at f000:fff0, before any firmware.
        registers = answer(line, "g")
        assert registers[16 * 16 : 17 * 16] == "f0ff000000000000"
        line.sendall(b"$D#44")  # detach: it goes on by itself
        assert line.recv(16)
    assert person.process.wait(ANSWER) == 1


@pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")
def test_gdb_stops_where_a_symbol_stands(replay: Callable[..., Terminal]) -> None:
    person = replay("--gdb")
    command = shlex.split(person.expect(r"  (gdb \S+/vmlinux -ex '.*')\r\n")[1])
    socket_of_qemu = Path(command[-1].split()[-1])
    deadline = time.monotonic() + ANSWER
    while not socket_of_qemu.exists():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    # Software breakpoints would be overwritten: the kernel is not unpacked yet.
    words = ["hbreak start_kernel", "continue", "detach"]
    said = subprocess.run(
        [*command, "-nx", "-batch", *(word for text in words for word in ("-ex", text))],
        capture_output=True, text=True, timeout=ANSWER, check=False,
    )  # fmt: skip
    assert re.search(r"^Breakpoint 1, start_kernel \(\) at \S*init/main\.c:\d+$", said.stdout,
                     re.MULTILINE), said  # fmt: skip
    assert person.process.wait(ANSWER) == 1
