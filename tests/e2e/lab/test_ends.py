# SPDX-License-Identifier: GPL-2.0-only
"""Runs that end before their time, runs beside each other, guests and hosts gone wild."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from marks import MARK, kill_marked, marked

from lab.results.merge import load_run
from lab.store import Store
from lab.testing.lease import SILENCE, Leases
from lab.testing.mutate import copy_checkout
from lab.testing.rig import checkout
from lab.vm.machine import Machine

pytestmark = [pytest.mark.limit(900), pytest.mark.slow]

Runner = Callable[..., Any]  # conftest's, and conftests are not to be imported

#: Seconds within which all of them must be gone.
GONE = 5.0
KILLS = 10
#: Seconds after its start within which a run is killed at most.
SPAN = 30.0

#: Processes that are there once a network with all its parts is.
NETWORK = ("vde_switch", "guest=W-wire")
#: One that is there while a snapshot is made.
FREEZING = ("share=on",)

#: MiB of address space that a host gives to each process.
ROOM = 4096


def tasks(rounds: int) -> str:
    """Tests that keep a run busy: networks and plain machines in turn."""
    return f"""
pytestmark = pytest.mark.parametrize("number", range({rounds}), scope="module")

@pytest.mark.topology({str(Path(__file__).with_name("busy.yaml"))!r})
def test_network(net, number):
    for link in net.links:
        net["left"].succeed("ping -c 3 -i 0.2 -W 5 " + net.address("right", link=link))

def test_machines(machines, number):
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


@pytest.fixture
def own(place: Path) -> dict[str, str]:
    """The environment of a lab that keeps all in the place; only what is tested is everybody's."""
    store, temporary = place / "store", place / "tmp"
    (store / "artifacts").mkdir(parents=True)
    for kind in ("kernel", "modules", "image"):
        (store / "artifacts" / kind).symlink_to(Store().root / "artifacts" / kind)
    temporary.mkdir()
    return {
        "LAB_CACHE": str(store),
        "TMPDIR": str(temporary),
        "XDG_RUNTIME_DIR": str(place),
    }


def remains(place: Path) -> list[str]:
    """What labs have left in a place: sockets, leases, what was being made, temporary files."""
    patterns = ("lunatik-lab/*", "store/tmp/[!.]*", "tmp/lab-*")
    found = [str(path) for pattern in patterns for path in place.glob(pattern)]
    return found + [f"lease {lease}" for lease in leases(place)]


def leases(place: Path) -> list[dict[str, Any]]:
    """The ledger as it stands, of the dead too."""
    file = place / "store" / "leases.json"
    return list(json.loads(file.read_text())) if file.exists() else []


@pytest.fixture
def run(own: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """run("script.py", "argument", mark=mark): start Python, that names its children by a mark."""
    started = {}

    def run(*words: str, mark: str) -> subprocess.Popen[bytes]:
        started[mark] = subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, **own, MARK: mark},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        return started[mark]

    yield run
    for mark, process in started.items():
        process.kill()
        process.wait()
        # Where a test has failed there are some left.
        kill_marked(mark)


@pytest.fixture
def busy(
    cell_file: Callable[..., Path], run: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> Callable[[str], subprocess.Popen[bytes]]:
    """busy(mark): start a cell that is busy with networks and machines for long."""

    def start(mark: str) -> subprocess.Popen[bytes]:
        file = cell_file(tmp_path / mark, tasks(50), name="busy", workers=2)
        return run("-m", "lab", "cell", "run", str(file), mark=mark)

    return start


def processes(lab: subprocess.Popen[bytes], mark: str, words: Sequence[str]) -> dict[int, str]:
    """Those of a run, once each word is on some command line among them."""
    while True:
        found = marked(mark)
        if all(any(word in line for line in found.values()) for word in words):
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
def test_killed_at_any_moment_leaves_nothing(
    busy: Callable[[str], subprocess.Popen[bytes]],
    place: Path,
    record_property: Callable[[str, object], None],
) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    record_property("seed", seed)
    moments = random.Random(seed)
    span = SPAN
    for number in range(KILLS):
        mark = f"{os.getpid()}-{number}"
        began = time.monotonic()
        lab = busy(mark)
        if number < 2:
            processes(lab, mark, NETWORK)
            # The second time with a snapshot. A busy host is in no hurry, but we are.
            span = min(1.5 * (time.monotonic() - began), SPAN)
        else:
            time.sleep(moments.uniform(0, span))
        left = kill(lab, mark)
        assert not left, f"seed {seed}, kill {number}: left after {GONE:.0f} s: {left}"
        assert not list(place.glob("lunatik-lab/*")), f"seed {seed}, kill {number}"
        # What a lab does first, and when it first wants a machine.
        Leases(Store(place / "store").root / "leases.json").held()
        assert not remains(place), f"seed {seed}, kill {number}"


@pytest.mark.parametrize("moment", [FREEZING, NETWORK], ids=["freezing", "network"])
def test_what_lab_and_reaper_leave_goes_at_the_next_start(
    busy: Callable[[str], subprocess.Popen[bytes]],
    inner: Runner,
    own: dict[str, str],
    place: Path,
    moment: Sequence[str],
) -> None:
    mark = f"{os.getpid()}-both"
    lab = busy(mark)
    found = processes(lab, mark, moment)
    labs = [pid for pid, line in found.items() if line.startswith(sys.executable)]
    # Stopped first, so that no reaper does its work in between.
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in labs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    lab.wait()
    assert any("qemu-system" in line for line in marked(mark).values())
    assert list(place.glob("lunatik-lab/*"))
    assert {lease["pid"] for lease in leases(place)} & set(labs)
    assert bool(list(place.glob("store/tmp/snapshot-*"))) == (moment == FREEZING)
    later = inner(tasks(1), environment=own)
    assert later.statuses == {"test_network[0]": "passed", "test_machines[0]": "passed"}
    assert not marked(mark)
    assert not remains(place)


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
    assert run.status == 3


def test_memory_that_the_host_refuses_is_said_and_the_run_goes_on(
    inner: Runner, own: dict[str, str], place: Path
) -> None:
    mark = f"{os.getpid()}-refused"
    run = inner(
        f"""
        def test_big(start):
            start("big", memory={ROOM})

        def test_neighbour(machine):
            machine.succeed("true")
        """,
        environment=own | {MARK: mark},
        under=["prlimit", f"--as={ROOM << 20}"],
    )
    assert run.statuses == {"test_big": "infra", "test_neighbour": "passed"}
    assert run.status == 3
    said = run["test_big"].message
    assert re.fullmatch("big: the host has no memory for it: .*Cannot allocate memory; .*", said)
    assert "Traceback" not in run.output
    assert not marked(mark)
    assert not remains(place)


def test_memory_that_somebody_has_is_waited_for(
    inner: Runner, own: dict[str, str], place: Path
) -> None:
    ledger = Leases(place / "store" / "leases.json")
    lease = ledger.take(holder="somebody", memory=ledger.memory, cores=0)
    source = """
    def test_good(machine):
        machine.succeed("true")
    """
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(inner, source, environment=own)
        try:
            while all(entry["granted"] for entry in leases(place)):
                assert not ending.done()
                time.sleep(0.1)
            time.sleep(SILENCE + 1)
            assert not ending.done()
        finally:
            ledger.give_back(lease)
    run = ending.result()
    assert run.statuses == {"test_good": "passed"}
    assert run["test_good"].setup > SILENCE
    said = [line for line in run.output.splitlines() if "waiting for room" in line]
    assert len(said) == 1
    assert said[0].endswith(
        f"{ledger.memory} of {ledger.memory} MiB are leased by process {os.getpid()}"
    )
    assert not remains(place)


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
