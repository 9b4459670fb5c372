# SPDX-License-Identifier: GPL-2.0-only
"""The official test suite of Lua runs inside the kernel, file by file.

What of it does not stands in cuts.yaml. Files that are cut as a whole are no
tests here, but they count in the table; what counts as run are lines of a test.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from luasuite import counts_of, load_plans, prepare, share_run, table

from lab import manifest
from lab.manifest import ROOT
from lab.sources.lua import fetch_lua
from lab.store import Store
from lab.vm.machine import Machine

PLANS = load_plans()
RUN = [name for name, plan in PLANS.items() if not plan.whole]
SHARE = 0.9

#: The suite looks behind objects and takes its time; each parameter of the module.
PARAMETERS = {
    "memory": 96 << 20,
    "process_instructions": 100_000_000_000,
    "softirq_instructions": 100_000_000_000,
    "interrupt_share": 100,
    "unsafe_debug": 1,
}
TIMEOUT = 240.0

pytestmark = pytest.mark.limit(TIMEOUT + 20)


@pytest.fixture(scope="module")
def suite() -> Path:
    """testes/ of the pinned Lua."""
    version, spec = next(iter(manifest.read().lua.items()))
    return fetch_lua(version, spec, lock=ROOT / "lab.lock", store=Store()).path / "testes"


@pytest.fixture
def lua(machine: Machine) -> Machine:
    """A machine whose runtimes may hold and do as much as the suite wants."""
    for name, value in PARAMETERS.items():
        machine.succeed(f"echo {value} >/sys/module/lunatik/parameters/{name}")
    return machine


def run(machine: Machine, name: str, text: str, *, context: str, timeout: float) -> None:
    """Run a prepared file under its own name, which some of them ask for."""
    script = name.removesuffix(".lua")
    path = f"/lib/modules/lua/{name}"
    resume = "runtime:resume() " if context == "softirq" else ""
    machine.copy_to(text.encode("latin-1"), path)
    try:
        machine.lua(
            f'local runtime = require("lunatik").runtime("{script}", "{context}") '
            f"{resume}runtime:stop()",
            timeout=timeout,
        )
    finally:
        machine.succeed(f"rm {path}")


@pytest.mark.parametrize("name", RUN)
def test_file(lua: Machine, suite: Path, name: str) -> None:
    text = (suite / name).read_text(encoding="latin-1")
    prepared = prepare(text, PLANS[name], suite=suite)
    run(lua, name, prepared, context="process", timeout=TIMEOUT)


@pytest.mark.parametrize("name", [name for name, plan in PLANS.items() if plan.softirq])
def test_file_in_softirq(lua: Machine, suite: Path, name: str) -> None:
    text = (suite / name).read_text(encoding="latin-1")
    prepared = prepare(text, PLANS[name], suite=suite, softirq=True)
    run(lua, name, prepared, context="softirq", timeout=TIMEOUT)


def test_nine_tenths_of_what_can_run_do(suite: Path) -> None:
    counts = counts_of(suite)
    print(table(counts))
    total = sum(counts.values(), start=type(next(iter(counts.values())))())
    assert share_run(total) >= SHARE, table(counts)


def test_a_failing_assertion_is_noticed(lua: Machine, suite: Path) -> None:
    """The runner itself: a wrong assertion in the last line of a file fails it."""
    text = (suite / "bitwise.lua").read_text(encoding="latin-1") + "\nassert(1 == 2)\n"
    prepared = prepare(text, PLANS["bitwise.lua"], suite=suite)
    with pytest.raises(Exception, match="assertion failed"):
        run(lua, "bitwise.lua", prepared, context="process", timeout=TIMEOUT)
