# SPDX-License-Identifier: GPL-2.0-only
"""What kernel-patches/xdplua costs a packet where no hook is attached: not one instruction.

The same frames go through the kernel under test and through one of the same
source and flavour without patches, as in `test_filter_cost.py`: without any
program, and past one of eBPF, in both modes.  The other kernel is built if the
store does not have it, which takes longer than the rest:

    lab kernel build --patches none
    lab test -s -n 0 tests/bench/test_unused_hooks_cost.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
from test_filter_cost import EXACT, OTHERS, Bench, dropped

from lab import manifest
from lab.kernel.build import build_kernel
from lab.kernel.recipe import LOCK, make_recipe
from lab.modules.build import build_modules
from lab.modules.tree import module_trees
from lab.store import Store
from lab.testing.fixtures import KernelInfo
from lab.testing.plugin import BENCH
from lab.vm.machine import Machine

TRIES = 3
"""Of each measurement; the least counts, which met nothing else of the kernel's."""


@pytest.fixture
def unpatched(request: pytest.FixtureRequest, kernel: KernelInfo) -> dict[str, object]:
    """The shape of a machine whose kernel is the same without the patches."""
    if not kernel.has("XDP_LUA"):
        pytest.skip("this kernel has no XDP hooks for Lua (kernel-patches/xdplua)")
    cell = request.config.stash[BENCH].rig.cell
    lab, store = manifest.read(), Store()
    recipe = make_recipe(lab, kernel.name, store=store, flavour=cell.flavour, patches=())
    built = build_kernel(recipe, store=store)
    assert "CONFIG_XDP_LUA" not in built.config.read_text(encoding="utf-8")
    modules = build_modules(built, module_trees(lab, (), lock=LOCK, store=store), store)
    return {"kernel": built.bzimage, "payload": modules.payload}


def costs(machine: Machine, directory: Path) -> dict[str, int]:
    """Instructions of a frame, each way that it may go without a hook."""
    bench = Bench(machine, directory)

    def least(*sources: str) -> int:
        bench.cost(*sources)
        return min(bench.cost(*sources) for _ in range(TRIES))

    ways: dict[str, AbstractContextManager[object]] = {
        "no program": nullcontext(),
        "eBPF, native": bench.ebpf(1),
        "eBPF, generic": bench.ebpf(1, mode="xdpgeneric"),
    }
    found = {}
    for name, way in ways.items():
        with way:
            found[f"{name}: passed"] = least(*OTHERS)
            if name != "no program":
                found[f"{name}: dropped"] = least(*dropped(name, 1))
    return found


@pytest.mark.limit(3600)
def test_hooks_cost_nothing_where_there_are_none(
    start: Callable[..., Machine], unpatched: dict[str, object], tmp_path: Path
) -> None:
    without = costs(start("without", **EXACT, **unpatched), tmp_path)
    patched = costs(start("patched", **EXACT), tmp_path)
    print("\nbench packet, instructions: without the patches, with them", file=sys.stderr)
    for name, cost in without.items():
        print(f"  {name:24} {cost:>6} {patched[name]:>6}", file=sys.stderr)
    both = {"without": without, "with": patched}
    print(f"bench-json {json.dumps({'unused hooks, instructions': both})}", file=sys.stderr)
    assert patched == without
