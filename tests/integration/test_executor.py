# SPDX-License-Identifier: GPL-2.0-only
"""The executor as guests have it, run on the host, with the lab's end of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.image import build, recipe
from lab.manifest import ROOT
from lab.vm import executor as executors
from lab.vm import loop
from lab.vm.errors import (
    CommandRefused,
    CommandTimeout,
    GuestFileError,
    GuestSilent,
    MachineDied,
)
from lab.vm.executor import Executor
from lab.vm.machine import RawCompleted

#: With a card that leads nowhere; root needs no user namespace, and may not get one.
NETWORK = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
CARD = "ip link add eth0 type veth peer name far && ip link set far up"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It goes by its name."""
    target = tmp_path_factory.mktemp("guest") / "execute"
    build.compile_program(recipe.read(ROOT / "vm-images" / "debian.yaml"), target)
    return target


@pytest.fixture
def guest(
    request: pytest.FixtureRequest, program: Path, tmp_path: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command: list[str | Path] = [program, tmp_path / "port"]
    if "network" in request.fixturenames:
        command = [*NETWORK, "sh", "-c", f'{CARD} && exec "$@"', "sh", *command]
    with subprocess.Popen(command) as process:
        try:
            deadline = time.monotonic() + 20
            while not (tmp_path / "port").exists():
                assert process.poll() is None and time.monotonic() < deadline
                # It has no way to tell: what it says goes over the port.
                time.sleep(0.005)
            yield process
        finally:
            process.kill()


@pytest.fixture
def network() -> None:
    """The guest has a network of its own, with a card."""
    done = subprocess.run([*NETWORK, "sh", "-c", CARD], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip("this host gives us no network namespace with a card")


@pytest.fixture
def doom() -> asyncio.Future[LabError]:
    return loop.future()


@pytest.fixture
def executor(
    guest: subprocess.Popen[bytes], tmp_path: Path, doom: asyncio.Future[LabError]
) -> Iterator[Executor]:
    it = Executor(node="a", socket=tmp_path / "port", patience=1, doom=doom)
    deadline = time.monotonic() + 20
    while True:
        try:
            loop.call(it.connect())
            break
        except ConnectionRefusedError:
            # The socket has its name before anybody listens.
            assert guest.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
    yield it
    loop.call(it.close())


def run(
    executor: Executor, command: str, *, timeout: float = 20, stdin: bytes | None = None
) -> RawCompleted:
    return loop.call(executor.run(command, timeout=timeout, stdin=stdin))


def test_status_and_both_streams(executor: Executor) -> None:
    done = run(executor, "echo out; echo err >&2; exit 3")
    assert done == RawCompleted(3, b"out\n", b"err\n")


@pytest.mark.parametrize(("name", "status"), [("KILL", 137), ("PIPE", 141), ("CHLD", 0)])
def test_signals_are_as_in_a_shell(executor: Executor, name: str, status: int) -> None:
    """None is ignored or blocked."""
    assert run(executor, f"kill -{name} $$").status == status


def test_input_is_empty_unless_there_is_some(executor: Executor) -> None:
    assert run(executor, "cat; echo end").stdout == b"end\n"
    much = bytes(range(256)) * 8192
    assert run(executor, "cat", stdin=much).stdout == much
    assert run(executor, "cat", stdin=b"").stdout == b""


def test_who_does_not_read_its_input_ends_all_the_same(executor: Executor) -> None:
    assert run(executor, "head -c 3", stdin=b"abcdef" * 300_000).stdout == b"abc"
    assert run(executor, "exit 5", stdin=bytes(1 << 21)).status == 5


def test_it_inherits_nothing(executor: Executor) -> None:
    assert run(executor, "exec ls /proc/self/fd").stdout.split() == [b"0", b"1", b"2", b"3"]


def test_a_shell_that_waits_is_as_good(executor: Executor, tmp_path: Path) -> None:
    commands = {
        "echo out; echo err >&2; exit 3": RawCompleted(3, b"out\n", b"err\n"),
        "cat; ls /proc/self/fd; echo $0 $#": RawCompleted(0, b"0\n1\n2\n3\nsh 0\n", b""),
        "kill -PIPE $$": RawCompleted(141, b"", b""),
        "cat <<END\n  a 'b'\nEND\n": RawCompleted(0, b"  a 'b'\n", b""),
        "exec sh -c 'exit 7'": RawCompleted(7, b"", b""),
        "for i in 1 2; do\necho $i\ndone # end": RawCompleted(0, b"1\n2\n", b""),
        ": " + "x" * 10_000: RawCompleted(0, b"", b""),
    }
    for command, wanted in commands.items():
        loop.call(executor.spare(timeout=10))
        loop.call(executor.spare(timeout=10))
        assert run(executor, command) == wanted
        assert run(executor, command) == wanted
    assert run(executor, "if").status == 2


def test_a_shell_that_waits_can_be_killed(executor: Executor) -> None:
    loop.call(executor.spare(timeout=10))
    with pytest.raises(CommandTimeout):
        run(executor, "sleep 60 & sleep 60", timeout=0.3)
    loop.call(executor.spare(timeout=10))
    assert run(executor, "cat", stdin=b"fed").stdout == b"fed"
    waits = "-f '^sh -c [.] /run/lab-spare'"
    # Killed is not yet dead: on a busy host it still takes a command, and dies with it.
    kill = f"pkill -KILL {waits} && while pgrep {waits}; do sleep 0.01; done"
    assert run(executor, kill, stdin=b"").status == 0
    assert run(executor, "echo on").stdout == b"on\n"


def test_files(executor: Executor, tmp_path: Path) -> None:
    content = bytes(range(256)) * 8192
    file = tmp_path / "a file"
    for data, mode, wanted in ((content, None, 0o644), (b"", 0o755, 0o755), (b"x", 0o600, 0o600)):
        file.unlink(missing_ok=True)
        loop.call(executor.write(str(file), data, mode=mode, timeout=20))
        assert (file.read_bytes(), file.stat().st_mode & 0o777) == (data, wanted)
        assert loop.call(executor.read(str(file), timeout=20)) == data
    assert loop.call(executor.read("/proc/self/comm", timeout=20)) == b"execute\n"


def test_a_file_ends_with_its_last_word(guest: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """However late that comes: nobody asks again."""

    async def work() -> tuple[int, int, int]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "port"))
        words = b"0 " + os.fsencode(tmp_path / "file")
        writer.write(executors._HEAD.pack(8, 7, len(words)) + words)
        writer.write(executors._HEAD.pack(4, 7, 2) + b"it")
        while not (tmp_path / "file").exists() or (tmp_path / "file").read_bytes() != b"it":
            await asyncio.sleep(0.01)
        writer.write(executors._HEAD.pack(4, 7, 0))
        told = executors._HEAD.unpack(await asyncio.wait_for(reader.readexactly(12), 5))
        writer.close()
        return told

    assert loop.call(work()) == (4, 7, 1)
    assert guest.wait(5) == 0


def test_files_are_read_whole(
    executor: Executor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "KEPT", 10)
    (tmp_path / "file").write_bytes(bytes(1_000_000))
    assert loop.call(executor.read(str(tmp_path / "file"), timeout=20)) == bytes(1_000_000)


def test_files_that_cannot_be_moved(executor: Executor, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, why in (
        ("/none/x", "opened: No such file"),
        (str(tmp_path), "opened: Is a directory"),
        ("/dev/full", "written: No space left"),
        (str(tmp_path / "pipe"), "opened: No such device or address"),
    ):
        with pytest.raises(GuestFileError, match=f"a: {path} cannot be {why}"):
            loop.call(executor.write(path, bytes(100_000), mode=None, timeout=20))
    with pytest.raises(GuestFileError, match="cannot be read: Is a directory"):
        loop.call(executor.read(str(tmp_path), timeout=20))
    assert run(executor, "ls /proc/$PPID/fd | wc -l").stdout == b"8\n", "a file stayed open"


def test_a_file_that_does_not_end(executor: Executor) -> None:
    with pytest.raises(GuestSilent, match=r"/dev/zero was not moved within 0\.3 s"):
        loop.call(executor.read("/dev/zero", timeout=0.3))
    assert run(executor, "echo on").stdout == b"on\n"


def test_many_at_once(executor: Executor) -> None:
    results: dict[int, bytes] = {}

    def one(number: int) -> None:
        done = run(executor, f"sleep 0.{number % 7}; head -c 200000 /dev/zero; echo {number}")
        results[number] = done.stdout

    threads = [threading.Thread(target=one, args=(number,)) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: bytes(200_000) + b"%d\n" % number for number in range(40)}


def test_a_command_ends_with_whoever_holds_its_output(executor: Executor, tmp_path: Path) -> None:
    assert run(executor, "(sleep 0.3; echo late) & echo soon").stdout == b"soon\nlate\n"
    run(executor, f"(sleep 1; touch {tmp_path}/late) >/dev/null 2>&1 &")
    assert not (tmp_path / "late").exists()


def test_timeout_ends_the_process_group(executor: Executor, tmp_path: Path) -> None:
    with pytest.raises(CommandTimeout, match=r"within 0\.5 s") as caught:
        run(executor, f"echo here; (sleep 2; touch {tmp_path}/late) & sleep 60", timeout=0.5)
    assert caught.value.stdout == "here\n"
    # Past the moment at which whoever had been spared would have spoken.
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


def test_interrupt_ends_the_command_too(executor: Executor, tmp_path: Path) -> None:
    began = tmp_path / "began"

    async def work() -> None:
        task = asyncio.ensure_future(
            executor.run(f"echo $$ >{began}; exec sleep 60", timeout=60, stdin=None)
        )
        while not (began.exists() and began.read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()

    loop.call(work())
    assert not Path("/proc", began.read_text().strip()).exists()


def test_output_is_kept_up_to_a_limit(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "KEPT", 1000)
    done = run(executor, "head -c 5000 /dev/zero; head -c 999 /dev/zero >&2; exit 4")
    assert (done.status, len(done.stdout), len(done.stderr), done.cut) == (4, 1000, 999, True)
    assert not run(executor, "head -c 1000 /dev/zero").cut


def test_a_command_too_long_is_refused(executor: Executor) -> None:
    with pytest.raises(CommandRefused, match="was not started: Argument list too long"):
        run(executor, "true " + "x" * 140_000)
    assert run(executor, "echo on").stdout == b"on\n"


def test_a_quiet_guest_is_asked_and_a_silent_one_given_up(
    executor: Executor, guest: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "QUIET", 0.1)
    executor.silence = 1.0
    assert run(executor, "sleep 2").status == 0
    guest.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    for timeout in (30.0, 0.2):
        with pytest.raises(GuestSilent, match="did not answer within 1 s"):
            run(executor, "true", timeout=timeout)
    assert time.monotonic() - began < 20, "it was given the command's own time"
    guest.send_signal(signal.SIGCONT)


def test_an_executor_that_is_gone(executor: Executor, guest: subprocess.Popen[bytes]) -> None:
    os.kill(guest.pid, signal.SIGKILL)
    guest.wait()
    with pytest.raises(GuestSilent, match="closed the connection"):
        run(executor, "true")


def test_the_machines_end_is_what_is_told(
    executor: Executor, doom: asyncio.Future[LabError]
) -> None:
    reason = MachineDied("a: QEMU ended", reason="qemu")
    threading.Timer(0.3, loop.loop().call_soon_threadsafe, (doom.set_result, reason)).start()
    for _ in range(2):
        with pytest.raises(MachineDied, match="QEMU ended"):
            run(executor, "sleep 60")


def test_a_clone_that_cannot_be_woken(executor: Executor) -> None:
    with pytest.raises(LabError, match="could not set its wake"):
        loop.call(executor.wake("too few", timeout=10))


def configure(executor: Executor, *lines: str) -> str:
    return loop.call(executor.configure("\n".join(lines), timeout=20))


@pytest.mark.usefixtures("network")
def test_a_node_of_a_network(executor: Executor) -> None:
    said = configure(
        executor,
        "write /proc/sys/net/ipv4/ip_local_port_range 40000 40009",
        "up eth0",
        "address eth0 10.0.0.1/24",
        "address eth0 10.0.1.1/32",
        "address eth0 fd00::1/64",
        "route 0.0.0.0/0 10.0.0.2",
        "route 10.9.0.0/16 10.0.0.3",
        "route ::/0 fd00::2",
        "route fd09::/48 fd00::3",
    )
    assert said == ""
    shown = run(
        executor,
        "sysctl -n net.ipv4.ip_local_port_range; ip -o address show scope global;"
        "ip route; ip -6 route show proto boot",
    ).stdout.decode()
    words = [" ".join(line.split()) for line in shown.splitlines()]
    for wanted in (
        "40000 40009",
        "eth0 inet 10.0.0.1/24 scope global eth0",
        "eth0 inet 10.0.1.1/32 scope global eth0",
        "eth0 inet6 fd00::1/64 scope global nodad",
        "default via 10.0.0.2 dev eth0",
        "10.9.0.0/16 via 10.0.0.3 dev eth0",
        "default via fd00::2 dev eth0 metric 1024",
        "fd09::/48 via fd00::3 dev eth0 metric 1024",
    ):
        assert any(wanted in line for line in words), wanted


@pytest.mark.usefixtures("network")
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("up eth7", "No such device"),
        ("address eth7 10.0.0.1/24", "No such device"),
        ("address eth0 nonsense", "Invalid argument"),
        ("route 10.9.0.0/16 10.1.0.1", "Nexthop has invalid gateway"),
        ("route fd09::/48 fd01::1", "No route to host"),
        ("write /proc/sys/net/none 1", "No such file or directory"),
        ("write /proc/sys/net/ipv4/ip_forward x", "Invalid argument"),
        ("nonsense", "Invalid argument"),
    ],
)
def test_what_the_kernel_refuses(executor: Executor, line: str, why: str) -> None:
    """In its own words, with the line, and nothing after it is done."""
    good = ("up eth0", "address eth0 10.0.0.5/24")
    said = configure(executor, *good, line, "address eth0 10.0.0.6/24")
    number, _, words = said.partition(" ")
    assert number == "3"
    assert why in words
    assert b"10.0.0.6" not in run(executor, "ip address").stdout


def test_a_node_without_an_executor(program: Path, tmp_path: Path) -> None:
    """The same by a program, for whoever reaches the guest in another way."""
    (tmp_path / "configure").symlink_to(program)
    for lines, status, said in (("", 0, ""), ("\nup none0\n", 1, "2 No such device\n")):
        done = subprocess.run(
            [tmp_path / "configure"], input=lines, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (status, said)


def test_words_in_pieces_are_put_together(guest: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """A port may give a frame byte by byte, and two at once."""

    async def work() -> list[tuple[int, int, bytes]]:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "port"))
        frame = executors._HEAD.pack(2, 7, 7) + b"echo on"
        for byte in frame:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.002)
        ping = executors._HEAD.pack(6, 8, 0)
        writer.write(ping + ping)
        told: list[tuple[int, int, bytes]] = []
        while len(told) < 4:
            kind, number, length = executors._HEAD.unpack(await reader.readexactly(12))
            told.append((kind, number, await reader.readexactly(length)))
        writer.close()
        return told

    told = loop.call(work())
    assert sorted(told) == [(2, 7, b"on\n"), (4, 7, b"0"), (6, 8, b""), (6, 8, b"")]
    assert guest.wait(5) == 0


def test_what_cannot_be_a_frame_ends_it_as_a_failure(
    guest: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """So that init starts another one, as it does not for a host that has hung up."""

    async def work() -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "port"))
        writer.write(executors._HEAD.pack(2, 7, 1 << 31))
        said = await reader.read()
        writer.close()
        return said

    assert loop.call(work()) == b""
    assert guest.wait(5) == 1


def test_hanging_up_waits_for_nobody(tmp_path: Path) -> None:
    """A guest that died takes nothing any more, and its QEMU reads nothing."""
    doom: asyncio.Future[LabError] = loop.future()

    async def work() -> None:
        gone = asyncio.Event()

        async def deaf(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
            await gone.wait()

        server = await asyncio.start_unix_server(deaf, str(tmp_path / "port"))
        it = Executor(node="a", socket=tmp_path / "port", patience=1, doom=doom)
        await it.connect()
        writing = asyncio.ensure_future(it.write("/file", bytes(5_000_000), mode=None, timeout=20))
        await asyncio.sleep(0.1)
        doom.set_result(MachineDied("a: panicked", reason="qemu"))
        with pytest.raises(MachineDied):
            await writing
        await asyncio.wait_for(it.close(), 5)
        gone.set()
        server.close()

    loop.call(work())
