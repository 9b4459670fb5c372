# SPDX-License-Identifier: GPL-2.0-only
"""However a script recurses in C, the kernel keeps the stack that it needs.

The library `stack` (lunatik-src/tests/stack) enters scripts at the end of a
task's stack and in interrupts, and says how far down they came.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

DOCS = Path(__file__).parents[3] / "docs" / "lua.md"

KIB = 1024

#: Bytes of a stack that all else is measured for; KASAN's are larger, and all in them.
USUAL = 16 * KIB

#: Bytes of a task's stack that are left in any case.
LEFT = 2 * KIB

#: The same where what Lua calls in the kernel goes as deep as it does anywhere: of
#: larger stacks no more, for a sanitizer's frames there grow by more than the stack.
LEFT_BY_FILES = KIB

#: What Lua takes of an interrupt's (IRQ_ALLOWANCE), and more to handle the overflow
#: (LUAI_STACKEXTRA).
ALLOWANCE = 6 * KIB
EXTRA = 1536

#: What the deepest C function and what it calls in the kernel take beyond that.
SLACK = 2 * KIB

#: The row of docs/lua.md that a recursion belongs to, and what defines go(), which
#: recurses until there is an error, and counts the levels.
RECURSIONS = {
    "index": (
        "`__index`",
        """
        local t
        t = setmetatable({}, {__index = function(_, k) levels = levels + 1 return t[k] end})
        function go() return t.x end
        """,
    ),
    "tostring": (
        "`__tostring`",
        """
        local t
        t = setmetatable({}, {__tostring = function() levels = levels + 1 return tostring(t) end})
        function go() return tostring(t) end
        """,
    ),
    "sort": (
        "`table.sort`",
        """
        function go()
            table.sort({1, 2}, function() levels = levels + 1 go() return true end)
        end
        """,
    ),
    "pcall": (
        "`pcall`",
        """
        local function down()
            levels = levels + 1
            local ok, message = pcall(down)
            error(message, 0)
        end
        go = down
        """,
    ),
    "coroutine": (
        "coroutine inside coroutine",
        """
        function go() coroutine.wrap(function() levels = levels + 1 go() end)() end
        """,
    ),
    "gsub": (
        "`gsub` inside",
        """
        function go() return ("x"):gsub("x", function() levels = levels + 1 go() end) end
        """,
    ),
    "pattern": (
        "optional items",
        """
        function go()
            for n = 1, 1000 do
                (("a"):rep(n)):find(("a?"):rep(n))
                levels = n
            end
        end
        """,
    ),
    **{
        name: (
            row,
            f"""
            function go()
                for n = 1, 1000 do
                    local ok, message = load("{before}" .. ("{begin}"):rep(n) .. "{middle}" ..
                        ("{end}"):rep(n))
                    if not ok then error(message, 0) end
                    levels = n
                end
            end
            """,
        )
        for name, row, before, begin, middle, end in (
            ("parentheses", "parser: parentheses", "return ", "(", "1", ")"),
            ("do", "parser: nested `do`", "", "do ", "", "end "),
            ("while", "parser: nested `do`", "", "while x do ", "", "end "),
            ("if", "parser: nested `if`", "", "if x then ", "", "end "),
            ("functions", "parser: nested functions", "", "return function() ", "", "end "),
            ("tables", "parser: nested tables", "return ", "{", "", "}"),
            ("concat", "parser: `..`", "return ", "x..", "x", ""),
            ("not", "parser: `..`", "return ", "not ", "x", ""),
        )
    },
}

#: All of them, by number, each with levels of its own.
SCRIPT = """
local env = require("lunatik")._ENV
local levels
local recursions = {}
""" + "".join(
    f"do\nlocal go\n{text}\nrecursions[#recursions + 1] = go\nend\n"
    for _, text in RECURSIONS.values()
)

#: The handler runs where there is no more room, as that of an uncaught error does.
ENTERED = """
return function()
    levels = 0
    local ok, message = xpcall(recursions[env.which], debug.traceback)
    local function says(text) return not ok and tostring(message):find(text, 1, true) ~= nil end
    env.overflow = says("C stack overflow") or says("pattern too complex")
end
"""

#: Interrupts that come meanwhile use a stack as well: not each time.
MEASURE = """
local lunatik, stack = require("lunatik"), require("stack")
local env = lunatik._ENV
print(stack.size())
for number = 1, {count} do
    local deep = lunatik.runtime("deep", "{context}", {{instructions = 1 << 30, share = 100}})
    env.which = number
    local least, most, ret
    for _ = 1, 5 do
        local used, untouched
        env.overflow = nil
        ret, used, untouched = stack.used(deep, "{where}", {eaten})
        least, most = math.min(least or used, used), math.max(most or untouched, untouched)
    end
    print(ret, env.overflow, least, most)
    deep:stop()
end
env.which, env.overflow = nil, nil
"""


def measure(machine: Machine, where: str, eaten: int = 0) -> tuple[int, dict[str, list[str]]]:
    """The size of a stack, and of each recursion: how it ended, bytes used, bytes left."""
    context = "process" if where == "task" else where
    machine.copy_to((SCRIPT + ENTERED).encode(), "/lib/modules/lua/deep.lua")
    size, *lines = machine.lua(
        MEASURE.format(count=len(RECURSIONS), context=context, where=where, eaten=eaten),
        timeout=60,
    ).splitlines()
    for name, line in zip(RECURSIONS, lines, strict=True):
        print(f"{name:12} {line}")
    return int(size), dict(zip(RECURSIONS, map(str.split, lines), strict=True))


def told(kernel: KernelInfo, how: list[str]) -> bool:
    """Whether a script was told; a sanitizer's frames may not leave its handler the room."""
    return kernel.has("KASAN") or how == ["0", "true"]


@pytest.mark.parametrize("eaten", [0, 8])
def test_of_a_task_some_is_left(machine: Machine, kernel: KernelInfo, eaten: int) -> None:
    """Whatever was used before somebody entered: KiB, of the usual size."""
    size, results = measure(machine, "task", eaten)
    for name, (*how, _, untouched) in results.items():
        # Where next to nothing is left it may have no room to say so.
        assert eaten or told(kernel, how), name
        assert int(untouched) >= LEFT * size // USUAL, name


@pytest.mark.parametrize("context", ["softirq", "hardirq"])
def test_of_an_interrupts_no_more_than_its_part(
    machine: Machine, kernel: KernelInfo, context: str
) -> None:
    size, results = measure(machine, context)
    for name, (*how, used, _) in results.items():
        assert told(kernel, how), name
        assert int(used) <= (ALLOWANCE + SLACK) * size // USUAL + EXTRA, name


DEVICE = """
require("device").new{name = "deep", write = function(_, text)
    local number = tonumber(text)
    if number then
        levels = 0
        recursions[number]()
    else
        env.levels = levels
    end
end}
"""


def published() -> dict[str, int]:
    """The table of docs/lua.md."""
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \|$", DOCS.read_text(), re.MULTILINE)
    return {row: int(levels) for row, levels in rows}


def test_levels_are_those_of_the_manual(machine: Machine, kernel: KernelInfo) -> None:
    if (kernel.name, kernel.flavour) != ("6.12", "default"):
        pytest.skip("the table is of 6.12 as most people run it")
    machine.copy_to((SCRIPT + DEVICE).encode(), "/lib/modules/lua/deep.lua")
    machine.succeed("lunatik run deep")
    said = machine.succeed(
        f"for number in $(seq {len(RECURSIONS)}); do "
        "echo $number >/dev/deep && exit 1; echo levels >/dev/deep; "
        "lunatik -e 'return require(\"lunatik\")._ENV.levels' || exit 1; done"
    )
    table = published()
    reached = dict(zip(RECURSIONS, map(int, said.split()), strict=True))
    print(reached)
    for name, (row, _) in RECURSIONS.items():
        assert [reached[name]] == [n for title, n in table.items() if title.startswith(row)], name


#: Goes back from the end, level by level, until there is room for a file.
COLD = """
local env = require("lunatik")._ENV
local function down()
    if pcall(down) then return end
    if not pcall(require, "packet") then error("no room yet") end
    env.came = true
end
return down
"""


def test_a_file_that_no_cache_has_leaves_some_too(machine: Machine) -> None:
    """Through file systems, the block layer and its driver."""
    machine.copy_to(COLD.encode(), "/lib/modules/lua/deep.lua")
    machine.succeed("sync; echo 3 >/proc/sys/vm/drop_caches")
    said = machine.lua(
        """
        local lunatik, stack = require("lunatik"), require("stack")
        local deep = lunatik.runtime("deep", "process", {instructions = 1 << 30})
        local ret, used, untouched = stack.used(deep, "task")
        local came = lunatik._ENV.came
        lunatik._ENV.came = nil
        deep:stop()
        return ret, came, untouched
        """
    )
    print(said)
    ret, came, untouched = said.split()
    assert (ret, came) == ("0", "true")
    assert int(untouched) >= LEFT_BY_FILES
