# SPDX-License-Identifier: GPL-2.0-only
"""The words of a test, said to a real guest."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from vm_kit import spec

from lab.provider.qemu import QemuProvider
from lab.vm.errors import CommandFailed, CommandTimeout, GuestFileError, GuestPanicked, MachineDied
from lab.vm.machine import Machine


@pytest.fixture(scope="module")
def provider() -> Iterator[QemuProvider]:
    it = QemuProvider()
    yield it
    it.close()


@pytest.fixture(scope="module")
def machine(provider: QemuProvider, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return provider.start(spec(), tmp_path_factory.mktemp("a"))


def test_status_and_streams_apart(machine: Machine) -> None:
    done = machine.execute("echo out; echo err >&2; exit 3")
    assert (done.status, done.stdout, done.stderr) == (3, "out\n", "err\n")


def test_succeed_and_fail(machine: Machine) -> None:
    assert machine.succeed("echo a", "echo b") == "a\nb\n"
    assert machine.fail("echo c; false") == "c\n"
    with pytest.raises(CommandFailed, match=r"a: `ls /none` ended with status 2") as caught:
        machine.succeed("ls /none")
    assert "No such file" in str(caught.value)
    with pytest.raises(CommandFailed, match="expected failure"):
        machine.fail("true")


def test_standard_input_and_quoting(machine: Machine) -> None:
    assert machine.execute("cat; echo \"$0 'x'\"", input="in\n").stdout == "in\nsh 'x'\n"


def test_large_output(machine: Machine) -> None:
    text = machine.execute("seq 200000", timeout=60).stdout
    assert text.splitlines()[-1] == "200000"
    assert text.count("\n") == 200000


def test_time_limit_ends_all_of_it(machine: Machine) -> None:
    with pytest.raises(CommandTimeout, match=r"did not end within") as caught:
        machine.execute("echo begun; sleep 12345 & sleep 12345", timeout=0.5)
    assert "begun" in caught.value.stdout
    machine.wait_until_succeeds("! pgrep -x sleep", timeout=5)


def test_many_commands_at_once(machine: Machine) -> None:
    began = time.monotonic()
    done: list[str] = []

    def ask(number: int) -> None:
        done.append(machine.succeed(f"sleep 2; echo {number}", timeout=60))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(done) == sorted(f"{number}\n" for number in range(10))
    assert time.monotonic() - began < 20, "one after the other they would sleep for 20 s"


def test_files_both_ways(machine: Machine, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000
    machine.copy_to(content, "/tmp/blob")
    assert machine.copy_from("/tmp/blob") == content
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    machine.copy_to(script, "/tmp/a script")
    assert machine.succeed("'/tmp/a script'") == "ran\n"
    with pytest.raises(GuestFileError, match="/none/x cannot be opened"):
        machine.copy_to("", "/none/x")


def test_wait_for_open_port(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="success within"):
        machine.wait_for_open_port(4321, timeout=0.2)
    machine.succeed("(sleep 1; nc -l -p 4321) </dev/null >/dev/null 2>&1 &")
    machine.wait_for_open_port(4321)


def test_the_guest_is_as_documented(machine: Machine) -> None:
    mounts = machine.succeed("cat /proc/mounts")
    assert "overlay / overlay rw" in mounts
    for place in (
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/sys/fs/bpf",
        "/sys/kernel/debug",
        "/sys/fs/cgroup",
    ):
        assert f" {place} " in mounts
    assert machine.succeed("hostname").strip() == "a"
    links = machine.succeed("ip -o link").splitlines()
    assert sum(": eth" in link for link in links) == 4
    assert "LOWER_UP" in links[0], "the loopback is up"
    machine.succeed("touch /usr/x && rm /usr/x", "ping -c1 -W5 127.0.0.1")
    assert machine.succeed("cat /proc/1/comm").strip() == "init"


def test_console_is_the_kernels_alone(machine: Machine) -> None:
    machine.succeed("echo said by a test > /dev/kmsg")
    for _ in range(50):
        if "said by a test" in machine.kernel_log():
            break
        time.sleep(0.1)
    lines = [line for line in machine.kernel_log().splitlines() if line.strip()]
    assert all(line.startswith("[") for line in lines if "SeaBIOS" not in line)
    assert lines[-1].endswith("said by a test")


def test_no_room_left(machine: Machine) -> None:
    with pytest.raises(CommandFailed, match="No space left"):
        machine.succeed("dd if=/dev/zero of=/full bs=1M count=600", timeout=60)
    machine.succeed("rm -f /full")


def test_crash(provider: QemuProvider, tmp_path: Path) -> None:
    machine = provider.start(spec("crasher"), tmp_path)
    machine.crash()
    with pytest.raises(GuestPanicked, match=r"Kernel panic - not syncing: sysrq triggered crash$"):
        machine.execute("true")
    machine.stop()
    log = (tmp_path / "kernel.log").read_text()
    assert "Call Trace" in log
    assert "end Kernel panic" in log
    with pytest.raises(GuestPanicked):
        machine.execute("true")


def test_a_guest_that_leaves(provider: QemuProvider, tmp_path: Path) -> None:
    machine = provider.start(spec("leaver"), tmp_path)
    with pytest.raises(MachineDied, match="powered itself off") as caught:
        machine.execute("poweroff; sleep 60", timeout=60)
    assert caught.value.reason == "guest-shutdown"


def test_shutdown(provider: QemuProvider, tmp_path: Path) -> None:
    machine = provider.start(spec("closer"), tmp_path)
    machine.shutdown()
    assert not machine.body.alive()
    with pytest.raises(MachineDied, match="was stopped"):
        machine.execute("true")
    assert "reboot: Power down" in (tmp_path / "kernel.log").read_text()
