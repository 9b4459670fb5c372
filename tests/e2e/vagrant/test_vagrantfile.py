# SPDX-License-Identifier: GPL-2.0-only
"""The Vagrantfile itself, in a libvirt of its own: its machines' life, and what is left."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.image import box as boxes
from lab.net import topology
from lab.provider import vagrant_preflight as preflight
from lab.provider.vagrant import RECIPE, VAGRANTFILE, add_box
from lab.provider.vagrant_account import USER_HOME, Run, open_run, uses
from lab.provider.vagrant_call import Vagrant
from lab.provider.vagrant_plan import Planner
from lab.store import Store
from lab.testing.plugin import BENCH
from lab.testing.rig import Rig

pytestmark = [pytest.mark.limit(900), pytest.mark.fresh]

#: Seconds, on a host that does other things too.
LONG = 400.0

VERSION = "lunatik -e 'print(_VERSION)'"


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Rig:
    return request.config.stash[BENCH].rig


@pytest.fixture
def place(rig: Rig) -> Iterator[Run]:
    """A run's directories with the Vagrantfile and a plan of `pair` in them."""
    run = open_run(rig.store)
    try:
        box = boxes.build(RECIPE, rig.store)
        (run.short / "c").mkdir(mode=0o700)
        planner = Planner(run.home, box=box, spec=rig.spec("node"))
        plan = planner.topology(topology.read("pair"), sources=VAGRANTFILE.parent / "lunatik-src")
        # Nothing of the checkout can be read by the user that we drop to.
        sources = run.home / "sync/lunatik-src"
        sources.unlink()
        sources.mkdir()
        plan.save(run.home)
        shutil.copyfile(VAGRANTFILE, run.home / "Vagrantfile")
        for path in [run.short / "c", *run.home.rglob("*")]:
            run.account.owns(path)
        add_box(box, vagrant(run))
        yield run
    finally:
        run.end()


def vagrant(run: Run) -> Vagrant:
    return Vagrant(
        root=run.home,
        account=run.account,
        env={"LAB_PLAN": str(run.home / "plan.json")},
        log=run.home / "vagrant.log",
    ).within(LONG)


def virsh(run: Run, *words: str) -> str:
    done = run.account.call(
        ["virsh", "--quiet", "--connect", "qemu:///session", *words], cwd=run.home, timeout=60
    )
    assert done.status == 0, done.stderr
    return done.stdout


def inside(run: Run, machine: str, command: str) -> str:
    return str(vagrant(run).ssh(vm_name=machine, command=command))


def test_vagrant_takes_the_file(place: Run) -> None:
    said = vagrant(place).say("validate")
    assert "validated successfully" in said


def test_life_of_two_machines(place: Run) -> None:
    call = vagrant(place)
    call.up()
    assert call.states() == {"node1": "running", "node2": "running"}
    assert inside(place, "node1", VERSION).strip().endswith("Lua 5.5")
    assert "0% packet loss" in inside(place, "node1", "ping -c 1 10.0.0.2")
    call.suspend("node1")
    assert call.states()["node1"] == "paused"
    call.resume("node1")
    call.halt("node2")
    assert call.states() == {"node1": "running", "node2": "shutoff"}
    call.up("node2")
    # The node is what it should be without anybody's doing.
    assert "0% packet loss" in inside(place, "node2", "ping -c 1 10.0.0.1")
    assert inside(place, "node2", "hostname").strip() == "right"
    call.destroy()
    assert set(call.states().values()) == {"not_created"}
    assert virsh(place, "list", "--all", "--name").strip() == ""
    volumes = virsh(place, "vol-list", "default")
    names = [line.split()[0] for line in volumes.splitlines() if line.strip()]
    assert len(names) == 1, names  # the box's, not a machine's


KILLED = """
import sys, time
from pathlib import Path
from lab.provider.vagrant import VagrantProvider
from lab.store import Store
from lab.vm.spec import MachineSpec
kernel, root, payload, cache = map(Path, sys.argv[1:])
spec = MachineSpec(name="a", kernel=kernel, root=root, payload=payload)
VagrantProvider(store=Store(cache)).prepare(spec)
"""


def test_nothing_is_left_when_the_lab_is_killed(rig: Rig) -> None:
    spec = rig.spec("a")
    before = directories(rig.store)
    words = [str(spec.kernel), str(spec.root), str(spec.payload), str(rig.store.root)]
    lab = subprocess.Popen([sys.executable, "-c", KILLED, *words], start_new_session=True)
    try:
        home = wait_for(lambda: next(iter(directories(rig.store) - before), None))
        wait_for(lambda: [line for line in uses(home) if "qemu-system" in line])
        short = Path("/tmp") / f"lab-{home.name}"
        assert any("libvirtd" in line for line in uses(short))
    finally:
        os.kill(lab.pid, signal.SIGKILL)
        lab.wait()
    wait_for(lambda: not (uses(home) or uses(short) or home.exists() or short.exists()), 10.0)


def directories(store: Store) -> set[Path]:
    base = USER_HOME if os.geteuid() == 0 else store.root / "vagrant"
    return set(base.glob("v-*"))


def wait_for(found, limit: float = 120.0):  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + limit
    while True:
        result = found()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {limit} s"
        time.sleep(0.1)


def test_a_run_with_something_missing_says_which(tmp_path: Path) -> None:
    for program in ("sh", "env", "python3"):
        (tmp_path / program).symlink_to(shutil.which(program) or "")
    names = [name for name, _, _ in preflight.PROGRAMS]
    done = subprocess.run(
        [sys.executable, "-m", "lab", "test", "--provider", "vagrant"],
        env={"PATH": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(VAGRANTFILE.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "vagrant: not installed" in done.stderr
    assert [name for name in names if name in done.stderr]
