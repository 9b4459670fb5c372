# SPDX-License-Identifier: GPL-2.0-only
"""Runs that end before their time, runs beside each other, guests and hosts gone wild."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import manifest
from lab.results.merge import load_run
from lab.store import Store
from lab.testing.fixtures import KernelInfo
from lab.testing.mutate import copy_checkout
from lab.testing.rig import checkout
from lab.testing.stages import Wanted, Workshop, prepare
from lab.vm.machine import Machine

pytestmark = [pytest.mark.limit(900), pytest.mark.slow]

Runner = Callable[..., Any]  # conftest's, and conftests are not to be imported

#: Names every process of a run, whatever it does to its arguments.
MARK = "LAB_TEST_OF_ENDS"
#: Seconds within which all of them must be gone.
GONE = 5.0
KILLS = 10
#: Seconds after its start within which a run is killed at most.
SPAN = 30.0

BUSY = """
@pytest.mark.parametrize("number", range(50))
def test_busy(machines, number):
    one, two = machines("one", "two")
    one.succeed("echo there > /dev/kmsg", "sleep 0.2")
    two.succeed("dd if=/dev/zero of=/x bs=1M count=20")
"""

#: A machine and the snapshot that it is cloned from, in a store of their own.
#: A step of the freezing that is named stays at its end until it is killed.
FREEZE = """
import asyncio
import sys
import time
from pathlib import Path
from lab.provider.qemu import QemuProvider
from lab.store import Store
from lab.vm import snapshot
from lab.vm.spec import MachineSpec

def stays(step):
    def plain(*words):
        step(*words)
        time.sleep(600)

    async def waits(*words):
        await step(*words)
        await asyncio.sleep(600)

    return waits if asyncio.iscoroutinefunction(step) else plain

for name in sys.argv[5:]:
    setattr(snapshot, name, stays(getattr(snapshot, name)))
kernel, root, store, directory = map(Path, sys.argv[1:5])
provider = QemuProvider(store=Store(store))
machine = provider.start(MachineSpec(name="a", kernel=kernel, root=root), directory)
print(machine.cloned, machine.succeed("echo here"))
provider.close()
print(sorted(path.name for path in (store / "artifacts").glob("snapshot/*")))
"""


def marked(mark: str) -> dict[int, str]:
    """Processes that were given the mark, zombies apart: pid -> command line."""
    found = {}
    needle = f"{MARK}={mark}".encode()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            if needle in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
    return found


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory for sockets that no other lab uses or sweeps; its path is short."""
    with tempfile.TemporaryDirectory(prefix="lab-") as directory:
        yield Path(directory)


@pytest.fixture
def run(place: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """run("script.py", "argument", mark=mark): start Python, that names its children by a mark."""
    started = []

    def run(*words: str, mark: str) -> subprocess.Popen[bytes]:
        started.append(
            subprocess.Popen(
                [sys.executable, *words],
                env={**os.environ, "XDG_RUNTIME_DIR": str(place), MARK: mark},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def busy(
    cell_file: Callable[..., Path], run: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> Callable[[str], subprocess.Popen[bytes]]:
    """busy(mark): start a cell that is busy with machines for long."""

    def start(mark: str) -> subprocess.Popen[bytes]:
        file = cell_file(tmp_path / mark, BUSY, name="busy", workers=2)
        return run("-m", "lab", "cell", "run", str(file), mark=mark)

    return start


def is_machine(line: str) -> bool:
    """Whether a command line is a machine's; QEMU is asked for its version too."""
    return "qemu-system" in line and "memory-backend" in line


def processes(lab: subprocess.Popen[bytes], mark: str) -> dict[int, str]:
    """Those of a run, once there are machines among them."""
    while True:
        found = marked(mark)
        if any(map(is_machine, found.values())):
            return found
        assert lab.poll() is None
        time.sleep(0.05)


def kill(lab: subprocess.Popen[bytes], mark: str) -> dict[int, str]:
    """Kill a run; what of it is left after GONE seconds."""
    assert lab.poll() is None, "it has ended by itself"
    lab.send_signal(signal.SIGKILL)
    lab.wait()
    deadline = time.monotonic() + GONE
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


@pytest.mark.limit(400)
def test_killed_at_any_moment_leaves_no_process(
    busy: Callable[[str], subprocess.Popen[bytes]],
    place: Path,
    record_property: Callable[[str, object], None],
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    record_property("seed", seed)
    moments = random.Random(seed)
    # How long it takes until machines run; a busy host is in no hurry, but we are.
    began = time.monotonic()
    first = f"{os.getpid()}-first"
    lab = busy(first)
    processes(lab, first)
    assert not kill(lab, first)
    span = min(1.5 * (time.monotonic() - began), SPAN)
    for number in range(KILLS - 1):
        mark = f"{os.getpid()}-{number}"
        lab = busy(mark)
        time.sleep(moments.uniform(0, span))
        left = kill(lab, mark)
        assert not left, f"seed {seed}, kill {number}: left after {GONE:.0f} s: {left}"
    assert not list(place.glob("lunatik-lab/*")), f"seed {seed}"


def test_what_lab_and_reaper_leave_goes_at_the_next_start(
    busy: Callable[[str], subprocess.Popen[bytes]], inner: Runner, place: Path
) -> None:
    mark = f"{os.getpid()}-both"
    lab = busy(mark)
    found = processes(lab, mark)
    others = [pid for pid, line in found.items() if not is_machine(line)]
    # Stopped first, so that no reaper does its work in between.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in others:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    lab.wait()
    assert any(map(is_machine, marked(mark).values()))
    assert list(place.glob("lunatik-lab/*"))
    later = inner(
        """
        def test_good(machine):
            machine.succeed("true")
        """,
        environment={"XDG_RUNTIME_DIR": str(place)},
    )
    assert later.statuses == {"test_good": "passed"}
    assert not marked(mark)
    assert not list(place.glob("lunatik-lab/*"))


@pytest.mark.parametrize(("step", "made"), [("_examine", "console.log"), ("_save", "state")])
def test_killed_while_freezing_leaves_nothing_half_made(
    machine: Machine,
    run: Callable[..., subprocess.Popen[bytes]],
    tmp_path: Path,
    step: str,
    made: str,
) -> None:
    store = tmp_path / "store"
    words = ["-c", FREEZE, *map(str, (machine.spec.kernel, machine.spec.root, store, tmp_path))]
    mark = f"{os.getpid()}-{made}"
    # It stays there: between two looks a whole snapshot was finished.
    lab = run(*words, step, mark=mark)
    while not list(store.glob(f"tmp/snapshot-*/new/content/{made}")):
        assert lab.poll() is None
        time.sleep(0.05)
    assert not kill(lab, mark)
    assert not list(store.glob("artifacts/snapshot/*"))
    again = subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=300, check=False
    )
    assert again.returncode == 0, again.stderr
    assert "True here" in again.stdout
    assert len(list(store.glob("artifacts/snapshot/*"))) == 1
    assert [path.name for path in (store / "tmp").iterdir()] == [".sweeper"]


def test_runs_beside_each_other_are_as_if_alone(inner: Runner) -> None:
    source = """
    def test_good(machine):
        machine.succeed("true")

    def test_bad(machine):
        machine.fail("true")

    def test_splat(machine):
        machine.succeed("echo '<4>WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2' > /dev/kmsg")
        machine.succeed("sleep 0.3")

    @pytest.mark.parametrize("number", range(2))
    def test_network(net, number):
        net["left"].succeed(f"ping -c 1 -W 5 {net.address('right')}")
    test_network = pytest.mark.topology("pair")(test_network)
    """
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(inner, source, workers=2, name="first")
        time.sleep(0.1)  # each makes a directory of its own by counting
        second = pool.submit(inner, source, workers=2, name="second")
        runs = first.result(), second.result()
    for run in runs:
        network = {name: "passed" for name in run.statuses if name.startswith("test_network")}
        assert len(network) == 2
        assert run.statuses == {
            "test_good": "passed",
            "test_bad": "failed",
            "test_splat": "kernel",
            **network,
        }


@dataclass(frozen=True)
class Checkout:
    """A copy of ours, where runs have results of their own."""

    home: Path

    def test(self, name: str, *options: str) -> subprocess.Popen[str]:
        """Start `lab test` of a new file with a good test and a bad one."""
        file = self.home / "tests" / "e2e" / "own" / f"test_{name}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            f"def test_{name}_good(machine):\n    machine.succeed('true')\n\n"
            f"def test_{name}_bad(machine):\n    machine.fail('true')\n"
        )
        return subprocess.Popen(
            [sys.executable, "-m", "lab", "test", "--no-shared", "-n", "0", *options, str(file)],
            cwd=self.home,
            env={**os.environ, "PYTHONPATH": str(self.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def runs(self) -> dict[str, dict[str, str]]:
        """Run -> function's name -> status, and the same for `latest`."""
        return {
            file.parent.name: {
                test.id.partition("::")[2]: test.status for test in load_run(file).tests
            }
            for file in self.home.glob("results/*/run.json")
        }


@pytest.fixture
def stage(kernel: KernelInfo) -> tuple[str, ...]:
    """Options of `lab test` for what we run on, where nothing is to be built for it."""
    lab, store = manifest.read(), Store()
    if kernel.name not in lab.kernels:
        pytest.skip(f"{kernel.name} is no kernel of lab.yaml")
    wanted = Wanted(kernels=(kernel.name,), flavours=(kernel.flavour,))
    workshop = Workshop(lab, wanted, store)
    if not all(workshop.is_ready(stage) for stage in prepare(lab, wanted, store)):
        pytest.skip(f"{kernel.name} as in lab.yaml is not built")
    return "--kernel", kernel.name, "--flavour", kernel.flavour


@pytest.mark.parametrize("homes", [("one", "two"), ("one", "one")], ids=["two", "one"])
def test_lab_test_in_two_checkouts_or_twice_in_one(
    stage: tuple[str, ...], tmp_path: Path, homes: tuple[str, str]
) -> None:
    if not (checkout() / ".git").exists():
        pytest.skip("only git knows what belongs to a checkout")
    for home in set(homes):
        copy_checkout(checkout(), tmp_path / home)
    places = [Checkout(tmp_path / home) for home in homes]
    runs = [place.test(name, *stage) for place, name in zip(places, "ab", strict=True)]
    said = [run.communicate()[0] for run in runs]
    assert [run.returncode for run in runs] == [1, 1], said
    expected = [{f"test_{name}_good": "passed", f"test_{name}_bad": "failed"} for name in "ab"]
    for place in set(places):
        mine = [want for at, want in zip(places, expected, strict=True) if at == place]
        found = place.runs()
        latest = found.pop("latest")
        assert latest in mine
        assert sorted(found.values(), key=str) == sorted(mine, key=str)
        assert (place.home / "results" / "latest" / "report.html").exists()


@pytest.mark.limit(240)
def test_a_guest_that_floods_its_console_is_ended_and_the_run_goes_on(inner: Runner) -> None:
    run = inner(
        """
        @pytest.mark.limit(200)
        def test_flood(start):
            machine = start("noisy", cmdline=("printk.devkmsg=on",))
            # 100 MB, if it is let.
            machine.succeed(
                "line=$(printf '%0900d' 0); i=0; exec > /dev/kmsg; "
                "while [ $i -lt 110000 ]; do echo $line; i=$((i + 1)); done",
                timeout=180,
            )

        def test_neighbour(machine):
            machine.succeed("true")
        """
    )
    assert run.statuses["test_neighbour"] == "passed"
    test = run["test_flood"]
    assert test.status == "kernel"
    assert "wrote more than 32 MiB to its console" in test.message
    logs = sum(file.stat().st_size for file in run.directory.rglob("*.log"))
    assert logs < 150 << 20


def test_more_memory_than_there_is_is_said_and_the_run_goes_on(inner: Runner) -> None:
    run = inner(
        """
        def test_big(start):
            start("big", memory=1 << 30)

        def test_neighbour(machine):
            machine.succeed("true")
        """
    )
    assert run.statuses == {"test_big": "infra", "test_neighbour": "passed"}
    assert "MiB" in run["test_big"].message


def _fails(argv: list[str]) -> bool:
    return subprocess.run(argv, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("size", ["4M", "60M"])
def test_full_disk_while_freezing_boots_cold(machine: Machine, tmp_path: Path, size: str) -> None:
    spec = machine.spec
    namespace = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    if shutil.which("unshare") is None or _fails([*namespace, "true"]):
        pytest.skip("this host gives us no mount namespace")
    small, results = tmp_path / "small", tmp_path / "results"
    small.mkdir()
    ended = subprocess.run(
        [*namespace, "sh", "-c", f'mount -t tmpfs -o size={size} none {small} && exec "$@"', "sh",
         sys.executable, "-c", FREEZE, str(spec.kernel), str(spec.root), str(small), str(results)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "False here" in ended.stdout
    assert "[]" in ended.stdout
    assert "no snapshot, so machines boot cold" in ended.stderr
    assert "Traceback" not in ended.stderr
