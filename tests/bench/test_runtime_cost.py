# SPDX-License-Identifier: GPL-2.0-only
"""What the in-kernel Lua costs, in guest instructions: the same on every host.

The machine's clock counts instructions (icount), so the time stamp counter is
the measure. `lunatik-src/tests/bench` calls scripts from the kernel; the least
of several rounds is one that no interrupt came into.

    lab test -s tests/bench/test_runtime_cost.py
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lab import manifest
from lab.kernel.recipe import LOCK
from lab.modules.build import build_modules
from lab.modules.tree import module_trees
from lab.store import Store
from lab.testing.plugin import BENCH
from lab.vm.machine import Machine

#: Everything that would differ from boot to boot.
EXACT = {"icount": True, "cmdline": ("lunatik.hashseed=1",)}

#: Instructions that an empty callback may cost.
ENTRY = 600
RUNTIME = 40 << 10
CAPS = 5.0

#: Turns of a loop in one entry; the loop itself is measured, and taken off.
TURNS = 1000

PER_TURN = {
    "table read, t.x": "local y = t.x",
    "table read, a[j]": "local y = a[j]",
    "string compare, equal": "if s == u then end",
    "string compare, less": "if s < v then end",
    "call of a Lua function": "f()",
    "call of a C function, math.abs": "abs(i)",
    "data:getuint32": "local y = d:getuint32(4)",
    "rcu table read, integer": "local y = shared.number",
    "rcu table read, object": "local y = shared.object",
}

OPERATIONS = """
local rcu, data = require("rcu").table(), require("data").new(64)
rcu.number, rcu.object = 5, data
local function empty() end
return function(turns)
	local shared, d, f, abs, j = rcu, data, empty, math.abs, 3
	local t, a = {{x = 1}}, {{1, 2, 3, 4}}
	local s, u, v = "source port", "source port", "source address"
	for i = 1, turns do {body} end
end
"""

#: Calls, tables, strings, closures: what scripts do, none of it for long.
LOOP = """
local t = {}
local function add(a, b) return a + b end
return function(turns)
	local sum = 0
	for i = 1, turns do
		sum = add(sum, i & 0xff)
		t[i & 63] = sum
		if t[(i * 7) & 63] == sum then sum = sum - 1 end
		local name = "k" .. (i & 15)
		t[name] = (t[name] or 0) + #name
		if i & 7 == 0 then sum = sum + (name:find("5", 1, true) or 0) end
	end
	return sum
end
"""

MEASURE = """
local runtime = require("lunatik").runtime("bench_script", "{context}",
	{{instructions = 1 << 40, memory = 1 << 30, share = {share}}})
local cost = require("bench").{what}(runtime, {entries}, {argument})
runtime:stop()
return cost
"""


def measure(
    machine: Machine,
    script: str,
    *,
    context: str = "softirq",
    what: str = "entry",
    entries: int = 100,
    argument: int = 0,
    share: int = 100,
) -> int:
    """Instructions of one entry into a script, of several in a row."""
    machine.copy_to(script.encode(), "/lib/modules/lua/bench_script.lua")
    chunk = MEASURE.format(
        context=context, what=what, entries=entries, argument=argument, share=share
    )
    return int(machine.lua(chunk, timeout=60))


def report(rows: dict[str, object], title: str) -> None:
    """A table on stderr, and a line that a program can read."""
    width = max(map(len, rows))
    print(f"\nbench {title}", file=sys.stderr)
    for name, value in rows.items():
        print(f"  {name:{width}}  {value:>10}", file=sys.stderr)
    print(f"bench-json {json.dumps({title: rows})}", file=sys.stderr)


@pytest.mark.machine(**EXACT)
@pytest.mark.limit(120)
def test_the_measure_itself(machine: Machine) -> None:
    one, ten = (
        min(int(machine.lua(f'return require("bench").loop({turns})')) for _ in range(3))
        for turns in (10_000, 100_000)
    )
    assert ten - one == pytest.approx(180_000, rel=0.001)


@pytest.mark.machine(**EXACT)
@pytest.mark.limit(120)
def test_entries(machine: Machine) -> None:
    empty = "return function() end"
    rows: dict[str, object] = {}
    for context, share in (("process", 100), ("softirq", 25), ("hardirq", 25)):
        rows[f"{context}: lock, budget, protection"] = measure(
            machine, empty, context=context, what="empty", share=share
        )
        rows[f"{context}: empty callback"] = measure(machine, empty, context=context, share=share)
    report({**rows, "wanted": ENTRY}, "entry, instructions")
    assert all(int(str(value)) < ENTRY for value in rows.values())


@pytest.mark.machine(**EXACT)
@pytest.mark.limit(120)
def test_operations(machine: Machine) -> None:
    def turn(body: str) -> float:
        script = OPERATIONS.format(body=body)
        return measure(machine, script, entries=1, argument=TURNS) / TURNS

    loop = turn("")
    rows: dict[str, object] = {"a turn of an empty loop": round(loop, 1)}
    for name, body in PER_TURN.items():
        rows[name] = round(turn(body) - loop, 1)
    report(rows, "operation, instructions")
    assert all(float(str(value)) > 0 for value in rows.values())


@pytest.mark.machine(**EXACT)
@pytest.mark.limit(120)
def test_an_empty_runtime(machine: Machine) -> None:
    machine.copy_to(b"return function() end", "/lib/modules/lua/bench_script.lua")
    rows: dict[str, object] = {}
    for context in ("process", "softirq"):
        # The second one: the first has loaded what it needs.
        started, stopped, memory = machine.lua(
            f"""
            local lunatik, bench = require("lunatik"), require("bench")
            local started, stopped, memory
            for turn = 1, 2 do
                local begin = bench.now()
                local runtime = lunatik.runtime("bench_script", "{context}")
                started = bench.now() - begin
                for _, each in ipairs(lunatik.status()) do
                    if each.name == "bench_script" then memory = each.memory end
                end
                begin = bench.now()
                runtime:stop()
                stopped = bench.now() - begin
            end
            return started, stopped, memory
            """
        ).split()
        rows[f"{context}: bytes"] = int(memory)
        rows[f"{context}: instructions to start"] = int(started)
        rows[f"{context}: instructions to stop"] = int(stopped)
    report(rows, "empty runtime")
    assert int(str(rows["process: bytes"])) < RUNTIME
    assert int(str(rows["softirq: bytes"])) < RUNTIME


def remove_caps(tree: Path) -> None:
    """Take budget and memory cap out of a copy of lunatik-src."""
    for name, old, new in (
        (
            "lua/shim/luabudget.h",
            "#define luai_note(L, n)\t\t(G(L)->vm.slice -= (s64)(n))",
            "static inline s64 luai_free(void) { return 0; }\n#define luai_note(L, n)\tluai_free()",
        ),
        ("core/memory.c", "if (nsize > osize && !fits(runtime, nsize - osize))", "if (0)"),
        ("core/memory.c", "\truntime->memory += nsize - osize;\n", ""),
        ("core/memory.c", "\t\truntime->memory -= osize;\n", ""),
    ):
        file = tree / name
        text = file.read_text()
        assert text.count(old) == 1, f"{name} has changed: {old}"
        file.write_text(text.replace(old, new))


@pytest.fixture
def uncapped(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The payload with a Lua that counts neither instructions nor bytes."""
    rig = request.config.stash[BENCH].rig
    store = Store()
    lab = manifest.read()
    copy = tmp_path / "lunatik-src"
    shutil.copytree(lab.modules["lunatik"].resolve("path"), copy)
    remove_caps(copy)
    (tree,) = module_trees(lab, (), lock=LOCK, store=store)
    changed = replace(tree, path=copy, name="uncapped", key=f"{tree.key}-uncapped")
    return build_modules(rig.kernel, [changed], store).payload


@pytest.mark.limit(400)
def test_caps(start: Callable[..., Machine], uncapped: Path) -> None:
    costs = [
        measure(start(name, **EXACT, **shape), LOOP, entries=1, argument=20_000)
        for name, shape in (("capped", {}), ("uncapped", {"payload": uncapped}))
    ]
    capped, bare = costs
    share = 100 * (capped - bare) / bare
    report(
        {"with caps": capped, "without": bare, "the caps, %": f"{share:.2f}"},
        "loop benchmark, instructions",
    )
    assert share < CAPS
