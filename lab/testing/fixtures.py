# SPDX-License-Identifier: GPL-2.0-only
"""The fixtures of a test: its machine, several of them, its kernel."""

from __future__ import annotations

import concurrent.futures
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from lab.net import topology
from lab.net.network import Network
from lab.testing import replay
from lab.testing.bpf import Compiler, types_of
from lab.testing.rig import Rig, shaped
from lab.testing.shared import may_share
from lab.testing.trial import Trial
from lab.vm.machine import Machine
from lab.vm.spec import MachineSpec

__all__ = ["amount", "bpf", "kernel", "machine", "machines", "net", "start", "trial"]


@dataclass(frozen=True, kw_only=True)
class KernelInfo:
    """The kernel under test.

    Attributes:
        name: as in the manifest.
        version: what `uname -r` says.
        flavour: name of its configuration.
        vmlinux: with symbols and DWARF.
        patience: multiply own time limits by it.
    """

    name: str
    version: str
    flavour: str
    vmlinux: Path
    config: Path
    patience: float

    @property
    def line(self) -> tuple[int, int]:
        """(6, 12) for 6.12.117."""
        major, minor = self.version.split("-")[0].split(".")[:2]
        return int(major), int(minor)

    def has(self, symbol: str) -> bool:
        """Whether CONFIG_<symbol> is y or m."""
        lines = self.config.read_text(encoding="utf-8").splitlines()
        return any(f"CONFIG_{symbol}={value}" in lines for value in "ym")


@pytest.fixture
def trial(request: pytest.FixtureRequest) -> Trial:
    """The test as the lab sees it; a Provider for whoever starts machines itself."""
    from lab.testing.plugin import TRIAL

    found = request.node.stash.get(TRIAL, None)
    if found is None:
        pytest.fail("this test needs machines: run it with `lab test`", pytrace=False)
    assert isinstance(found, Trial)
    return found


@pytest.fixture
def kernel(request: pytest.FixtureRequest, trial: Trial) -> KernelInfo:  # noqa: ARG001
    """The kernel under test."""
    from lab.testing.plugin import BENCH

    rig = request.config.stash[BENCH].rig
    return KernelInfo(
        name=rig.kernel.name,
        version=rig.kernel.version,
        flavour=rig.cell.flavour,
        vmlinux=rig.kernel.vmlinux,
        config=rig.kernel.config,
        patience=rig.patience,
    )


@pytest.fixture
def bpf(request: pytest.FixtureRequest, trial: Trial, tmp_path: Path) -> Compiler:  # noqa: ARG001
    """bpf(Path("filter.bpf.c"), "-DTWICE"): a BPF program for the kernel under test, compiled.

    Its types are those of the kernel's BTF: ``#include "vmlinux.h"``.
    """
    from lab.testing.plugin import BENCH

    rig = request.config.stash[BENCH].rig
    return Compiler(types=types_of(rig.kernel, rig.store), directory=tmp_path)


@pytest.fixture
def amount(request: pytest.FixtureRequest, kernel: KernelInfo) -> int:
    """How often a test does its thing, by @pytest.mark.amount(100_000, few=2_000).

    Or by @pytest.mark.amount(10_000, in_ci=2_000), where slow flavours do all of it.
    """
    mark = request.node.get_closest_marker("amount")
    if mark is None:
        pytest.fail("`amount` wants @pytest.mark.amount(full, few=N or in_ci=N)", pytrace=False)
    return how_many(*mark.args, **mark.kwargs, patience=kernel.patience, environment=os.environ)


def how_many(
    full: int,
    *,
    few: int | None = None,
    in_ci: int | None = None,
    patience: float,
    environment: Mapping[str, str],
) -> int:
    """Few where somebody waits for the verdict (CI is set), or each takes long.

    Args:
        few: in both cases.
        in_ci: in the first only; the limit has to do for all of it under slow flavours.
    """
    waited_for = in_ci if few is None else few
    if environment.get("CI") and waited_for is not None:
        return waited_for
    return few if few is not None and patience > 1 else full


@pytest.fixture
def start(request: pytest.FixtureRequest, trial: Trial) -> Callable[..., Machine]:
    """start("alice", memory=256): a pristine machine; cold=True boots it.

    release="6.1" or flavour="debug" gives it another kernel of the same run;
    the test is skipped where the run has none.
    """
    from lab.testing.plugin import BENCH

    bench = request.config.stash[BENCH]

    def start(
        name: str = "machine",
        *,
        cold: bool = False,
        release: str | None = None,
        flavour: str | None = None,
        **shape: object,
    ) -> Machine:
        spec = _watched(request, shaped(_usual(bench.rig, name, release, flavour), shape))
        provider = bench.cold if cold else bench.provider
        return trial.start(spec, provider=provider)

    return start


@pytest.fixture
def machines(start: Callable[..., Machine]) -> Callable[..., list[Machine]]:
    """machines("alice", "bob", memory=256): pristine machines, started at once."""

    def machines(*names: str, **shape: object) -> list[Machine]:
        return _at_once(lambda name: start(name, **shape), names)

    return machines


@pytest.fixture
def machine(request: pytest.FixtureRequest, start: Callable[..., Machine], trial: Trial) -> Machine:
    """A pristine machine; @pytest.mark.machine(memory=256, ...) says what it is like."""
    from lab.testing.plugin import BENCH

    shape: dict[str, object] = {}
    for mark in reversed(list(request.node.iter_markers("machine"))):
        shape |= mark.kwargs
    shared = request.config.stash[BENCH].shared
    if shared is not None and may_share(request.node):
        lent = shared.lend(trial)
        lent.succeed(*cast("Sequence[str]", shape.get("prepare", ())))
        return lent
    return start("machine", **shape)


@pytest.fixture
def net(request: pytest.FixtureRequest, trial: Trial) -> Iterator[Network]:
    """Pristine machines in a network; @pytest.mark.topology("router", bridge=True) says which.

    A name is one of the ready-made topologies, a file is looked for beside the
    test's own. With `bridge` every wire can be impaired.
    """
    from lab.testing.plugin import BENCH

    rig = request.config.stash[BENCH].rig
    mark = request.node.get_closest_marker("topology")
    wanted = mark.args[0] if mark and mark.args else "pair"
    if wanted.endswith(".yaml"):
        wanted = request.path.parent / wanted
    chosen = topology.read(wanted)
    if mark and mark.kwargs.get("bridge"):
        chosen = chosen.bridged()
    trial.topology = chosen.drawing()
    trial.directory.mkdir(parents=True, exist_ok=True)
    (trial.directory / "topology.json").write_text(
        chosen.model_dump_json(indent=1, exclude_defaults=True) + "\n", encoding="utf-8"
    )

    def spec(name: str) -> MachineSpec:
        node = chosen.nodes.get(name)
        if node is None:
            return rig.spec(name)
        return _watched(request, _usual(rig, name, node.kernel, node.flavour))

    network = Network(chosen, specs=spec, start=trial.start, directory=trial.directory)
    yield network
    network.stop()


def _usual(rig: Rig, name: str, kernel: str | None, flavour: str | None) -> MachineSpec:
    if kernel is None and flavour is None:
        return rig.spec(name)
    peer = rig.peer(kernel, flavour)
    if peer is None:
        wanted = f"{kernel or rig.kernel.name} {flavour or rig.cell.flavour}"
        pytest.skip(f"{name} wants {wanted}, which is not part of this run (--kernel, --flavour)")
    return rig.peer_spec(peer, name)


def _watched(request: pytest.FixtureRequest, spec: MachineSpec) -> MachineSpec:
    """The same, but under gdb where a person asked for it."""
    if not request.config.getoption("--lab-gdb"):
        return spec
    # Its own: in a mixed network that is not the cell's.
    return replay.stopped(spec, vmlinux=spec.kernel.with_name("vmlinux"))


def _at_once(make: Callable[[str], Machine], names: Sequence[str]) -> list[Machine]:
    if not names:
        return []
    with concurrent.futures.ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(make, names))
