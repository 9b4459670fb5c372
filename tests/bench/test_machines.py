# SPDX-License-Identifier: GPL-2.0-only
"""What a pristine machine costs, with virtme-ng beside on the same kernel, in this run.

    answer  from the request to a first command's answer, the module loaded: a
            clone's median under 0.2 s, its 95th percentile under 0.4 s
    lan16   sixteen machines on a LAN, all telling their addresses, and the
            first has an answer of the last: under 5 s, 100 MB each
    rate    trivial tests with -n 2: at least 4 a second
    again   what a run does before and after its tests when nothing changed
            (source, kernel, modules, image and snapshot looked up): under 5 s

The kernel is the default one with 9P, over which virtme-ng's guests have the
host's root file system; the lab's machines do not look at it.
"""

from __future__ import annotations

import ipaddress
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from lab import manifest
from lab.image.build import build as build_image
from lab.kernel.artifact import Kernel
from lab.kernel.build import build_kernel
from lab.kernel.recipe import LOCK, make_recipe
from lab.manifest import ROOT
from lab.modules.build import build_modules
from lab.modules.tree import module_trees
from lab.net.network import Network
from lab.net.topology import read as read_topology
from lab.provider.qemu import QemuProvider
from lab.results.record import RunResult
from lab.store import Store
from lab.vm.machine import Machine
from lab.vm.spec import MachineSpec

CLONES = 40
BOOTS = 5
BIN = Path(sys.executable).parent

NINEP = "CONFIG_NET_9P=y\nCONFIG_NET_9P_VIRTIO=y\nCONFIG_9P_FS=y\nCONFIG_9P_FS_POSIX_ACL=y\n"

#: What the kernel has for addresses, by the shell's own words: no program is started.
ADDRESSES = """
for file in /proc/net/fib_trie /proc/net/if_inet6; do
    while read -r line; do echo "$line"; done <$file
done
"""

TRIVIAL = """
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_trivial(machine, number):
    assert machine.succeed("echo here") == "here" + chr(10)
"""


def report(name: str, **figures: float) -> None:
    told = "  ".join(f"{key}={value:.3f}" for key, value in figures.items())
    print(f"\nbench machines {name}: {told}", file=sys.stderr)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest of the user's own: the default kernel with 9P."""
    home = tmp_path_factory.mktemp("manifest")
    (home / "ninep.config").write_text(NINEP)
    name = manifest.read().default_kernel
    fragment = home / "ninep.config"
    (home / "lab.yaml").write_text(f'kernels:\n  "{name}":\n    fragments: [{fragment}]\n')
    return home / "lab.yaml"


@pytest.fixture(scope="module")
def kernel(own: Path) -> Kernel:
    lab, store = manifest.read(own), Store()
    return build_kernel(make_recipe(lab, lab.default_kernel, store=store), store=store)


@pytest.fixture(scope="module")
def spec(kernel: Kernel) -> MachineSpec:
    """As tests have it: the module is loaded."""
    store = Store()
    root = build_image("debian", ROOT / "vm-images" / "debian.yaml", store).root
    trees = module_trees(manifest.read(), (), lock=LOCK, store=store)
    return MachineSpec(
        name="a",
        kernel=kernel.bzimage,
        root=root,
        payload=build_modules(kernel, trees, store).payload,
        prepare=("modprobe lunatik",),
    )


@pytest.fixture
def provider() -> Iterator[QemuProvider]:
    it = QemuProvider(store=Store())
    yield it
    it.close()


def first_answer(provider: QemuProvider, spec: MachineSpec, directory: Path) -> float:
    began = time.monotonic()
    machine = provider.start(spec, directory)
    assert machine.succeed("echo here") == "here\n"
    took = time.monotonic() - began
    machine.stop()
    return took


def virtme_ng(kernel: Kernel) -> float:
    """Seconds that virtme-ng takes for one command."""
    argv: list[object] = [
        BIN / "vng",
        "--run",
        kernel.bzimage,
        "--disable-kvm",
        "--disable-microvm",
    ]
    # Without --verbose, a kernel of ours has no port for what the command says.
    argv += [
        "--verbose",
        "--force-9p",
        "--memory",
        "512M",
        "--cpus",
        "1",
        "--exec",
        "echo hello-$((6 * 7))",
    ]
    began = time.monotonic()
    # It calls its own programs by name; its status is that of a serial port.
    ended = subprocess.run(
        [str(word) for word in argv],
        env={"PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "dumb"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "hello-42" in ended.stdout + ended.stderr, ended.stderr
    return time.monotonic() - began


def test_answer(provider: QemuProvider, kernel: Kernel, spec: MachineSpec, tmp_path: Path) -> None:
    provider.prepare(spec)
    clones = sorted(
        first_answer(provider, spec, tmp_path / f"clone-{number}") for number in range(CLONES)
    )
    cold = QemuProvider()
    boots = [first_answer(cold, spec, tmp_path / f"boot-{number}") for number in range(BOOTS)]
    theirs = [virtme_ng(kernel) for _ in range(BOOTS)]
    median, late = statistics.median(clones), clones[int(0.95 * CLONES) - 1]
    report(
        "answer",
        clone_median=median,
        clone_95th=late,
        boot_median=statistics.median(boots),
        virtme_ng_median=statistics.median(theirs),
        ratio=statistics.median(theirs) / median,
    )
    assert median < 0.2
    assert late < 0.4


def proportional(pid: int) -> float:
    """MB of memory that a process has, what it shares divided by those that share."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    raise AssertionError("no Pss")


def know_their_addresses(net: Network) -> bool:
    """Whether all nodes say that they have theirs, all asked at once."""

    def knows(name: str) -> bool:
        told = net[name].succeed(ADDRESSES)
        four, six = (ipaddress.ip_address(net.address(name, version=v)) for v in (4, 6))
        return f"|-- {four}\n" in told and f"{six.exploded.replace(':', '')} " in told

    with ThreadPoolExecutor(len(net.machines)) as pool:
        return all(pool.map(knows, net.machines))


def test_lan16(provider: QemuProvider, spec: MachineSpec, tmp_path: Path) -> None:
    plan = read_topology("lan16")
    machines: list[Machine] = []

    def start(wanted: MachineSpec) -> Machine:
        machine = provider.start(wanted, tmp_path / wanted.name)
        machines.append(machine)
        return machine

    def named(name: str) -> MachineSpec:
        return replace(spec, name=name)

    first_answer(provider, spec, tmp_path / "warm")
    took = []
    for _ in range(2):  # the first one makes the snapshot
        began = time.monotonic()
        net = Network(plan, specs=named, start=start, directory=tmp_path)
        assert know_their_addresses(net)
        net["n1"].succeed(f"ping -n -c 1 -W 5 {net.address('n16')}")
        took.append(time.monotonic() - began)
        memory = [proportional(machine.body.pid or 0) for machine in machines]
        for machine in machines:
            machine.stop()
        machines.clear()
        net.stop()
    report("lan16", seconds=took[-1], mb_each=max(memory))
    assert took[-1] < 5
    assert max(memory) < 100


def run_trivial(own: Path, directory: Path, count: int, *options: str) -> float:
    """Seconds that a run of so many trivial tests takes."""
    file = directory / f"test_{count}.py"
    file.write_text(TRIVIAL.format(count=count))
    began = time.monotonic()
    subprocess.run(
        [BIN / "lab", "--manifest", own, "test", "-n", "2", *options, file],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=600,
    )
    return time.monotonic() - began


def test_rate(own: Path, kernel: Kernel, tmp_path: Path) -> None:
    run_trivial(own, tmp_path, 4)
    # Planning, start-up and report are in both, so not in the difference.
    ours = 160 / (run_trivial(own, tmp_path, 200) - run_trivial(own, tmp_path, 40))
    began = time.monotonic()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: virtme_ng(kernel), range(6)))
    theirs = 6 / (time.monotonic() - began)
    report("rate", lab_a_second=ours, virtme_ng_a_second=theirs, ratio=ours / theirs)
    assert ours >= 4


def test_again(own: Path, tmp_path: Path) -> None:
    run_trivial(own, tmp_path, 1)
    results = tmp_path / "results"
    took, in_test = [], []
    for _ in range(5):
        took.append(run_trivial(own, tmp_path, 1, "--results", str(results)))
        run = RunResult.model_validate_json((results / "latest" / "run.json").read_text())
        in_test.append(sum(test.duration for test in run.tests))
    report("again", whole=min(took), test=min(in_test))
    assert min(took) - min(in_test) < 5


def test_virtme_ng_is_there() -> None:
    """So that the others compare with something."""
    assert shutil.which("vng", path=str(BIN))
