# SPDX-License-Identifier: GPL-2.0-only
"""Every crash that the kernel offers to make on purpose is seen, named and blamed right.

An inner run provokes them, a pristine victim and a bystander for each; this
one reads its results.  What each must look like is data (lkdtm.yaml).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lkdtm
import pytest

from lab.results.record import Splat, TestResult
from lab.testing.cell import Cell
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = [pytest.mark.limit(1500), pytest.mark.slow, pytest.mark.fresh]

PROVOKE = "/sys/kernel/debug/provoke-crash/DIRECT"

#: A run each, so that a long one can be had in pieces.
GROUPS = ("bugs", "heap", "perms", "refcount", "usercopy", "others")

#: Share of the types that may be silent or left out.
QUIET = 0.25

INNER = """
TYPES = {types!r}
PROVOKE = {provoke!r}

@pytest.mark.limit(90)
@pytest.mark.parametrize("kind", TYPES)
def test_provoke(start, kind):
    # SMEP and SMAP: what the kernel does with user memory shall be seen.
    shape = {{"cpu": "Nehalem,+smep,+smap", "cpus": {cpus!r}.get(kind, 1)}}
    victim, bystander = start("victim", **shape), start("bystander", cpu=shape["cpu"])
    bystander.succeed("true")
    victim.succeed("modprobe lkdtm")
    # A second instead of twenty, and an end once it has spoken.
    for name, value in {sysctls!r}.items():
        victim.succeed(f"echo {{value}} > {{name}}")
    once = f"echo {{kind}} > {{PROVOKE}}"
    victim.execute({scripts!r}.get(kind, once).replace("ONCE", once) + "; sleep 0.2", timeout=8)

@pytest.mark.parametrize("number", range(3))
def test_neighbour(machine, number):
    machine.succeed("true")
"""

SYSCTLS = {
    "/proc/sys/kernel/watchdog_thresh": 1,
    "/proc/sys/kernel/softlockup_panic": 1,
    "/proc/sys/kernel/hung_task_timeout_secs": 2,
    "/proc/sys/kernel/hung_task_panic": 1,
    "/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout": 3,
}


def line_of(kernel: KernelInfo) -> str:
    """Such as 6.12; skips where nobody has written down what it must look like."""
    line = "{}.{}".format(*kernel.line)
    if line not in lkdtm.read()["absent"]:
        pytest.skip(f"nobody has looked at the crash types of {line} yet")
    return line


def complaint(test: TestResult, kinds: frozenset[str]) -> str:
    """What is wrong with the result of a type, or ""."""
    spoke: list[Splat] = [s for s in test.splats if s.severity != "note" and s.noise is None]
    if kinds <= lkdtm.SILENCE:
        status, said = ("failed", "CommandTimeout: victim: ") if kinds else ("passed", "")
        if test.status == status and test.message.startswith(said) and not spoke:
            return ""
        return f"expected {status} in silence, got {test.status}: {test.message}"
    if test.status != "kernel" or test.exit != 1:
        return f"status {test.status}, exit {test.exit}: {test.message}"
    if not spoke:
        hangs = "hang" in kinds and test.message.startswith("victim: the kernel hangs")
        return "" if hangs else f"not a word of the kernel: {test.message}"
    if spoke[0].kind not in kinds:
        return f"kind {spoke[0].kind} ({spoke[0].title}), expected {' or '.join(sorted(kinds))}"
    blamed = {(splat.node, splat.phase) for splat in spoke}
    return "" if blamed == {("victim", "test")} else f"blamed {sorted(blamed)}"


def test_the_table_is_complete(machine: Machine, kernel: KernelInfo) -> None:
    line = line_of(kernel)
    types = {
        name: entry
        for group in lkdtm.types_of(lkdtm.read(), line).values()
        for name, entry in group.items()
    }
    machine.module("lkdtm")
    offered = machine.succeed(f"cat {PROVOKE}").splitlines()[1:]
    assert {name for name in offered if name} == set(types)
    expected = [lkdtm.wanted(entry, line, kernel.flavour) for entry in types.values()]
    assert all(reason for kinds, reason in expected if not kinds)
    silent = [name for name, (kinds, _) in zip(types, expected, strict=True) if not kinds]
    assert len(silent) <= QUIET * len(types), f"{len(silent)} of {len(types)} are silent: {silent}"


@pytest.mark.parametrize("group", GROUPS)
def test_every_crash_type(
    inner: Callable[..., Any], kernel: KernelInfo, ours: Cell, group: str
) -> None:
    line, table = line_of(kernel), lkdtm.read()
    types = lkdtm.types_of(table, line)[group]
    run = inner(
        INNER.format(
            types=list(types),
            provoke=PROVOKE,
            cpus=table["cpus"],
            sysctls=SYSCTLS,
            scripts=table["scripts"],
        ),
        workers=2,
        cmdline=(*ours.cmdline, "slub_debug=FZPU"),
    )
    wrong = {
        name: said
        for name, entry in types.items()
        if (
            said := complaint(
                run[f"test_provoke[{name}]"], lkdtm.wanted(entry, line, kernel.flavour)[0]
            )
        )
    }
    assert not wrong, "\n".join(f"{name}: {said}" for name, said in wrong.items())
    for number in range(3):
        assert run[f"test_neighbour[{number}]"].status == "passed"
    assert run.status == 1
