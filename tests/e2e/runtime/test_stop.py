# SPDX-License-Identifier: GPL-2.0-only
"""Stopping a runtime is safe from anywhere, at any time."""

from __future__ import annotations

import pytest

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

ENV = 'local env = require("lunatik")._ENV '


def run(machine: Machine, name: str, text: str, context: str = "process") -> None:
    """Run a script of that text."""
    machine.copy_to(text.encode(), f"/lib/modules/lua/{name}.lua")
    machine.succeed(f"lunatik run {name} {context}")


def gone(machine: Machine) -> None:
    """Nothing is left running, and the machine's Lua still works."""
    machine.wait_until_succeeds('test -z "$(lunatik list)"')
    assert machine.lua("1 + 1") == "2"


@pytest.mark.parametrize("context", ["process", "softirq", "hardirq"])
def test_twice_and_twice_at_once(machine: Machine, context: str) -> None:
    run(machine, "idle", "return function() end", context)
    machine.succeed(f"lunatik -e '{ENV} local r = env.runtimes.idle; r:stop(); r:stop(); r:stop()'")
    machine.lua(ENV + "env.runtimes.idle = nil")
    run(machine, "idle", "return function() end", context)
    stop = f"lunatik -e '{ENV} local r = env.runtimes.idle if r then r:stop() end'"
    machine.succeed(f"for i in 1 2 3 4 5 6; do {stop} & done; wait")
    machine.lua(ENV + "env.runtimes.idle = nil")
    gone(machine)


@pytest.mark.parametrize("context", ["process", "softirq"])
def test_by_itself(machine: Machine, context: str) -> None:
    run(
        machine,
        "suicide",
        'local env = require("lunatik")._ENV '
        "return function() local me = env.runtimes.suicide env.runtimes.suicide = nil "
        "me:stop() env.said = true return 7 end",
        context,
    )
    assert machine.lua(ENV + "return env.runtimes.suicide:resume()") == "7"
    gone(machine)


def test_in_its_own_body(machine: Machine) -> None:
    machine.copy_to(
        b'local l = require("lunatik") l._ENV.parent:stop() while true do end',
        "/lib/modules/lua/child.lua",
    )
    run(
        machine,
        "parent",
        "return function(env) env.parent = env.runtimes.parent "
        'return pcall(require("lunatik").runtime, "child") end',
    )
    done = machine.execute(f"lunatik -e '{ENV} return env.runtimes.parent:resume(env)'", timeout=60)
    assert done.status in (0, 1)
    machine.lua(ENV + "env.parent = nil env.runtimes.parent = nil")
    gone(machine)


def test_by_the_script_that_it_resumes(machine: Machine) -> None:
    run(machine, "inner", "return function(outer) outer:stop() return 1 end")
    run(
        machine,
        "outer",
        "return function(inner, me) return inner:resume(me) end",
    )
    machine.execute(
        f"lunatik -e '{ENV} local r = env.runtimes "
        "local outer, inner = r.outer, r.inner r.outer = nil return outer:resume(inner, outer)'"
    )
    machine.succeed("lunatik stop inner")
    gone(machine)


def test_two_that_resume_each_other_do_not_hang(machine: Machine) -> None:
    text = "return function(me, other) if me and other then return other:resume(other, me) end end"
    run(machine, "a", text)
    run(machine, "b", text)
    done = machine.execute(f"lunatik -e '{ENV} local r = env.runtimes return r.a:resume(r.a, r.b)'")
    assert "EDEADLK" in done.stderr
    machine.succeed("lunatik stop a", "lunatik stop b")
    gone(machine)


@pytest.mark.parametrize(
    "body",
    [
        "while true do linux.schedule(20) end",
        "while true do pcall(linux.schedule, 1) end",
        "while true do end",
        "while true do pcall(function() while true do linux.schedule(1) end end) end",
        "linux.schedule()",
        'require("completion").new():wait()',
        'local c = require("completion").new() while true do pcall(c.wait, c) end',
    ],
)
def test_thread_that_never_looks(machine: Machine, body: str) -> None:
    text = f'local linux = require("linux") return function() {body} end'
    machine.copy_to(text.encode(), "/lib/modules/lua/deaf.lua")
    machine.succeed("lunatik spawn deaf", "sleep 0.2", "lunatik stop deaf")
    machine.wait_until_succeeds("! ps -e | grep deaf")
    gone(machine)


@pytest.mark.fresh
def test_thread_that_no_budget_ends(machine: Machine) -> None:
    machine.succeed(f"echo {1 << 50} > /sys/module/lunatik/parameters/process_instructions")
    machine.copy_to(b"return function() while true do end end", "/lib/modules/lua/deaf.lua")
    machine.succeed("lunatik spawn deaf", "sleep 0.2", "lunatik stop deaf")
    machine.wait_until_succeeds("! ps -e | grep deaf")
    gone(machine)


@pytest.mark.parametrize("context", ["process", "softirq", "hardirq"])
def test_while_it_is_loaded(machine: Machine, context: str) -> None:
    machine.copy_to(
        b'local linux = require("linux") for i = 1, 300 do linux.schedule(100) end',
        "/lib/modules/lua/slow.lua",
    )
    machine.succeed(f"lunatik run slow {context} > /tmp/said 2>&1 &")
    machine.wait_until_succeeds("lunatik list | grep loading")
    machine.succeed("lunatik stop slow")
    gone(machine)
    machine.wait_until_succeeds("grep '^lunatik: stopped' /tmp/said")


def test_unload_while_a_script_is_loaded(machine: Machine) -> None:
    machine.copy_to(
        b'local linux = require("linux") for i = 1, 300 do linux.schedule(100) end',
        "/lib/modules/lua/slow.lua",
    )
    machine.succeed("lunatik run slow > /tmp/said 2>&1 &")
    machine.wait_until_succeeds("lunatik list | grep loading")
    machine.succeed("lunatik unload", "lunatik load")
    gone(machine)


def test_reader_of_a_device_keeps_nothing(machine: Machine) -> None:
    run(
        machine,
        "letters",
        'require("device").new{name = "letters", '
        'read = function(_, length) return ("x"):rep(length + 100) end}',
    )
    assert machine.succeed("head -c 10 /dev/letters") == "x" * 10
    machine.succeed(
        "exec 5< /dev/letters; lunatik stop letters; "
        "! head -c 1 <&5 2> /tmp/error; grep 'No such device' /tmp/error; "
        "! test -e /dev/letters"
    )
    machine.succeed("lunatik run letters", "head -c 1 /dev/letters", "lunatik stop letters")


def test_cap_stops_for_good_and_says_why(machine: Machine) -> None:
    run(
        machine,
        "greedy",
        'require("device").new{name = "greedy", read = function()\nwhile true do end end}',
    )
    machine.fail("cat /dev/greedy", timeout=60)
    machine.fail("cat /dev/greedy")
    (line,) = machine.succeed("lunatik list").splitlines()
    assert line.endswith("broken: instruction budget exceeded at greedy.lua:2")
    machine.wait_until_succeeds("dmesg | grep 'greedy: stopped: instruction budget exceeded'")
    machine.succeed("lunatik stop greedy")
    gone(machine)


@pytest.mark.parametrize(
    ("caps", "wanted"),
    [
        ("{instructions = 1000}", "instruction budget exceeded"),
        ("{memory = 100000}", "not enough memory"),
    ],
)
def test_caps_of_one_runtime(machine: Machine, caps: str, wanted: str) -> None:
    machine.copy_to(
        b'local t = {} for i = 1, 2000 do t[i] = ("x"):rep(100) .. i end return 1',
        "/lib/modules/lua/small.lua",
    )
    chunk = f'require("lunatik").runtime("small", "process", {caps})'
    assert wanted in machine.execute("lunatik -e -", input=chunk).stderr
    machine.lua('require("lunatik").runtime("small", "process", {memory = 1 << 20})')


def test_message_without_memory_is_no_other_message(machine: Machine) -> None:
    """Of the sizes of a long name, some leave too little for the message and its place."""
    machine.copy_to(
        b"""
        local short = 0
        local function try(size)
            local typed = setmetatable({}, {__name = ("n"):rep(size)})
            local s = string.rep(typed, 1)
            return s
        end
        for size = 100000, 400000, 20000 do
            collectgarbage()
            local ok, why = pcall(try, size)
            assert(not ok)
            if why == "not enough memory" then
                short = short + 1
            else
                assert(why:find("bad argument #1 to 'rep'", 1, true), why:sub(1, 60))
            end
        end
        assert(short > 0)
        """,
        "/lib/modules/lua/long.lua",
    )
    machine.lua(
        'require("lunatik").runtime("long", "process", '
        "{memory = 1000000, instructions = 10000000}):stop()"
    )


@pytest.mark.parametrize("caps", ["{memory = 0}", "{share = 101}", "{instructions = 'x'}", "3"])
def test_caps_that_are_none(machine: Machine, caps: str) -> None:
    machine.copy_to(b"return 1", "/lib/modules/lua/small.lua")
    chunk = f'require("lunatik").runtime("small", "process", {caps})'
    assert "bad " in machine.execute("lunatik -e -", input=chunk).stderr


HOLDS = """
local depths, at = {}, 1500
while at > 5 do depths[1500 - at] = true at = at * 2 // 3 end
local function down(n)
    local a, b, c, d, e, f, g, h, i, j, k, l, m, o, p, q, r, s, t, u
    if n > 0 then down(n - 1) end
    if depths[n] then coroutine.yield() end
    return n
end
kept = {}
for i = 1, 60 do
    kept[i] = coroutine.create(down)
    assert(coroutine.resume(kept[i], 1500))
    for _ = 2, 12 do
        collectgarbage()
        assert(coroutine.resume(kept[i]))
    end
end
collectgarbage()
"""


def test_what_is_held_is_what_is_counted(machine: Machine, kernel: KernelInfo) -> None:
    """A stack that shrinks little by little gives back what it does not count any more."""
    if kernel.has("KASAN"):
        pytest.skip("KASAN keeps for a while what is freed")
    machine.copy_to(HOLDS.encode(), "/lib/modules/lua/holds.lua")
    free = "grep MemAvailable /proc/meminfo | tr -dc 0-9"
    before = int(machine.succeed(free))
    machine.lua(
        """
        local lunatik = require("lunatik")
        local caps = {instructions = 1 << 40}
        lunatik._ENV.runtimes.holds = lunatik.runtime("holds", "process", caps)
        """,
        timeout=60,
    )
    assert before - int(machine.succeed(free)) < 12 << 10


#: Two hundred megabytes, one after another.
DROPS = {
    "at_once": "data.new(1 << 20)",
    "after_others_saw_it": "env.dropped = data.new(1 << 20) env.dropped = nil",
}


@pytest.mark.parametrize("drops", DROPS)
def test_what_is_dropped_is_free_again(machine: Machine, kernel: KernelInfo, drops: str) -> None:
    """RCU, which frees late, has no more of it than the script may hold."""
    if kernel.has("KASAN"):
        pytest.skip("KASAN keeps for a while what is freed")
    free = "grep MemAvailable /proc/meminfo | tr -dc 0-9"
    before = int(machine.succeed(free))
    machine.lua(
        f"""
        local env, data = require("lunatik")._ENV, require("data")
        for _ = 1, 200 do
            {DROPS[drops]}
            collectgarbage()
        end
        """,
        timeout=60,
    )
    assert before - int(machine.succeed(free)) < 24 << 10


def test_results_on_their_way_are_paid_for(machine: Machine) -> None:
    machine.copy_to(
        b"""
        local s = ("x"):rep(100000)
        return function(...) return s, s, s, s, s, s, s, s, s, s, s, s, {} end
        """,
        "/lib/modules/lua/giver.lua",
    )
    said = machine.lua(
        """
        collectgarbage("stop")
        local giver = require("lunatik").runtime("giver")
        for _ = 1, 600 do
            local _, said = pcall(giver.resume, giver)
            why = said
        end
        return why
        """,
        timeout=60,
    )
    assert "cannot" in said or "invalid" in said, said


def test_a_script_gives_no_more_than_it_has(machine: Machine) -> None:
    machine.copy_to(b"return 1", "/lib/modules/lua/small.lua")
    machine.copy_to(
        b"""
        local lunatik = require("lunatik")
        for _, caps in ipairs{{memory = 1 << 40}, {instructions = 300000}, {share = 60}} do
            print(pcall(lunatik.runtime, "small", "softirq", caps))
        end
        lunatik.runtime("small", "softirq", {memory = 1 << 20, instructions = 5000, share = 5})
        print("as much as it has")
        """,
        "/lib/modules/lua/giver.lua",
    )
    machine.succeed("lunatik run giver")
    for field in ("memory", "instructions", "share"):
        machine.succeed(f"dmesg | grep \"giver.*false.*field '{field}'\"")
    machine.succeed("dmesg | grep 'as much as it has'")


def test_two_that_wait_for_each_others_end(machine: Machine) -> None:
    """Finalizers, which nobody can interrupt: they wait a few times, and no more."""
    for name, other in (("b", "c"), ("c", "b")):
        script = f"""
        local env = require("lunatik")._ENV
        keep = setmetatable({{}}, {{__gc = function()
            local other = env.{other}
            while true do other:stop() end
        end}})
        """
        machine.copy_to(script.encode(), f"/lib/modules/lua/{name}.lua")
    machine.copy_to(
        b"""
        local lunatik = require("lunatik")
        lunatik._ENV.b, lunatik._ENV.c = lunatik.runtime("b"), lunatik.runtime("c")
        """,
        "/lib/modules/lua/both.lua",
    )
    listed = "lunatik list | grep -wE 'b|c'"
    machine.succeed("lunatik run both", listed)
    machine.succeed("lunatik -e 'require(\"lunatik\")._ENV.b:stop()'")
    machine.wait_until_succeeds(f"! {listed}")
    machine.succeed("lunatik stop both")


#: Fewer than there are by default: they need not be made first.
FEW = "echo 12 > /sys/module/lunatik/parameters/max_runtimes"


@pytest.mark.fresh
def test_what_stopped_runtimes_left_counts(machine: Machine) -> None:
    """Each holds up to its cap, in a table that outlives it: a loop would take all memory."""
    machine.copy_to(
        b"""
        local env = require("lunatik")._ENV
        local number = (env.number or 0) + 1
        env.number = number
        env["left" .. number] = require("data").new(1000)
        """,
        "/lib/modules/lua/filler.lua",
    )
    machine.succeed(FEW)
    fill = """
        local lunatik = require("lunatik")
        for number = 1, 40 do
            local ok, filler = pcall(lunatik.runtime, "filler")
            if not ok then
                assert(filler:find("ENFILE: too many runtimes", 1, true), filler)
                return number
            end
            filler:stop()
        end
    """
    assert 8 < int(machine.lua(fill)) < 16
    assert machine.succeed("lunatik list") == ""
    machine.lua(ENV + 'for number = 1, 40 do env["left" .. number] = nil end')
    assert 8 < int(machine.lua(fill)) < 16


#: Sleeps for ever, in pieces that no signal but a deadly one cuts short.
SLEEPS = """
local linux = require("linux")
local function sleep() while true do linux.schedule(100, linux.task.UNINTERRUPTIBLE) end end
"""

NESTED = {
    "resumes": ("return sleep", 'local r = lunatik.runtime("inner") r:resume()'),
    "loads": ("sleep()", 'lunatik.runtime("inner")'),
}


@pytest.mark.parametrize("nested", NESTED)
def test_who_is_inside_of_another_one_is_stopped(machine: Machine, nested: str) -> None:
    inner, outer = NESTED[nested]
    machine.copy_to((SLEEPS + inner).encode(), "/lib/modules/lua/inner.lua")
    machine.copy_to(
        f'local lunatik = require("lunatik") return function() {outer} end'.encode(),
        "/lib/modules/lua/outer.lua",
    )
    machine.succeed("lunatik spawn outer")
    machine.wait_until_succeeds("lunatik list | grep inner")
    machine.succeed("lunatik stop outer")
    machine.wait_until_succeeds('test -z "$(lunatik list)"')


def test_who_waits_for_a_busy_one_is_stopped(machine: Machine) -> None:
    """Not after as long as an entry waits for those who are inside: ten seconds."""
    run(machine, "busy", SLEEPS + "return sleep")
    machine.copy_to(
        (
            ENV
            + """
            return function()
                env.came = true
                local began = require("linux").time()
                env.ok = pcall(env.busy.resume, env.busy)
                env.waited = (require("linux").time() - began) // 1000000
            end
            """
        ).encode(),
        "/lib/modules/lua/waiter.lua",
    )
    machine.succeed(
        f"lunatik -e '{ENV} env.busy = env.runtimes.busy'",
        f"lunatik -e '{ENV} env.busy:resume()' >/tmp/said 2>&1 &",
    )
    machine.succeed("sleep 0.3", "lunatik spawn waiter")
    machine.wait_until_succeeds(f"lunatik -e '{ENV} assert(env.came)'")
    machine.succeed("sleep 0.3", "lunatik stop waiter")
    machine.wait_until_succeeds("! lunatik list | grep waiter")
    ok, waited = machine.lua(ENV + "return env.ok, env.waited").split()
    assert ok == "false"
    assert 200 < int(waited) < 8000
    machine.succeed("lunatik stop busy")
    machine.lua(ENV + "env.busy, env.came, env.ok, env.waited = nil")
    gone(machine)


def test_a_thread_that_found_no_way_in_is_told_of(machine: Machine) -> None:
    """Whoever made it has long gone on."""
    run(machine, "busy", SLEEPS + "return sleep")
    machine.succeed(
        f"lunatik -e '{ENV} env.busy = env.runtimes.busy'",
        f"lunatik -e '{ENV} env.busy:resume()' >/tmp/said 2>&1 &",
        "sleep 0.3",
    )
    machine.lua(ENV + 'env.thread = require("thread").run(env.busy, "late")')
    machine.wait_until_succeeds("dmesg | grep 'busy: a thread did not run: EBUSY'", timeout=30)
    machine.lua(ENV + "env.thread, env.busy = nil")
    machine.succeed("lunatik stop busy")
    gone(machine)


def test_who_was_inside_of_a_stopped_one_sleeps_on(machine: Machine) -> None:
    machine.copy_to((SLEEPS + "sleep()").encode(), "/lib/modules/lua/inner.lua")
    machine.copy_to(
        b"""
        pcall(require("lunatik").runtime, "inner")
        return require("linux").schedule(500)
        """,
        "/tmp/chunk",
    )
    machine.succeed('lunatik -e "$(cat /tmp/chunk)" >/tmp/left 2>&1 &')
    machine.wait_until_succeeds("lunatik list | grep inner")
    machine.succeed("lunatik stop inner")
    machine.wait_until_succeeds("test -s /tmp/left")
    assert machine.succeed("cat /tmp/left").strip() == "0"


def test_a_thread_that_is_stopped_inside_of_another_one_sleeps_no_more(machine: Machine) -> None:
    """Though what it was inside of ended since, which had been told to as well."""
    machine.copy_to((SLEEPS + "sleep()").encode(), "/lib/modules/lua/inner.lua")
    machine.copy_to(
        (
            ENV
            + """
            return function()
                pcall(require("lunatik").runtime, "inner")
                env.left = require("linux").schedule(5000)
            end
            """
        ).encode(),
        "/lib/modules/lua/outer.lua",
    )
    machine.lua(
        ENV
        + """
        env.outer = require("lunatik").runtime("outer")
        env.thread = require("thread").run(env.outer, "outer")
        """
    )
    machine.wait_until_succeeds("lunatik list | grep 'inner.*loading'")
    machine.succeed(
        "sleep 0.2",
        f"lunatik -e '{ENV} env.thread:stop()' >/dev/null 2>&1 & sleep 0.2; lunatik stop inner",
    )
    machine.wait_until_succeeds(f"lunatik -e '{ENV} assert(env.left)'")
    assert int(machine.lua(ENV + "return env.left")) > 4900
    machine.lua(ENV + "env.thread, env.left = nil env.outer:stop() env.outer = nil")
    gone(machine)


def test_hooks_are_not_too_many_to_end(machine: Machine) -> None:
    """Those of a CPU's runtime end by a grace period each."""
    machine.copy_to(
        b"""
        local timer, kept, why = require("timer"), {}
        while not why do
            local ok, made = pcall(timer.new, print)
            if ok then kept[#kept + 1] = made else why = made end
        end
        print(#kept, why)
        """,
        "/lib/modules/lua/hooks.lua",
    )
    machine.succeed("lunatik run hooks softirq percpu", "dmesg | grep 'hooks:0: 512.*ENOSPC'")
    machine.succeed("lunatik stop hooks")
    machine.wait_until_succeeds("rmmod lunatik_timer")


#: Starts runtimes until one is refused; how many there are.
KEEP = """
    local lunatik = require("lunatik")
    local keepers = {}
    for number = 1, 40 do
        local ok, keeper = pcall(lunatik.runtime, "keeper")
        if not ok then
            assert(keeper:find("enough memory") or keeper:find("total_memory"), keeper)
            break
        end
        keepers[number] = keeper
    end
    for _, keeper in ipairs(keepers) do keeper:stop() end
    return #keepers
"""


@pytest.mark.fresh
def test_what_all_together_hold_has_a_limit(machine: Machine) -> None:
    """Each holds less than its cap, and is given room until there is no more for any."""
    machine.copy_to(b'kept = ("x"):rep(1 << 9):rep(1 << 11)', "/lib/modules/lua/keeper.lua")
    machine.succeed(f"echo {8 << 20} > /sys/module/lunatik/parameters/total_memory")
    assert 2 <= int(machine.lua(KEEP)) <= 8
    machine.succeed("dmesg | grep 'all runtimes together hold what they may'")
    # They gave it back.
    assert 2 <= int(machine.lua(KEEP)) <= 8
    machine.wait_until_succeeds('test -z "$(lunatik list)"')
    machine.succeed("echo 0 > /sys/module/lunatik/parameters/total_memory")
    assert int(machine.lua(KEEP, timeout=60)) == 40


@pytest.mark.fresh
def test_what_a_stopped_one_lets_go_of_is_there_for_others(machine: Machine) -> None:
    """Something of it is left, which holds little."""
    machine.copy_to(b'kept = ("x"):rep(1 << 9):rep(1 << 11)', "/lib/modules/lua/keeper.lua")
    machine.copy_to(
        b"""
        local env, data = require("lunatik")._ENV, require("data")
        env.left = require("completion").new()
        for number = 1, 5 do env["large" .. number] = data.new(1 << 20) end
        """,
        "/lib/modules/lua/leaver.lua",
    )
    machine.succeed(f"echo {10 << 20} > /sys/module/lunatik/parameters/total_memory")
    machine.succeed("lunatik run leaver", "lunatik stop leaver")
    beside = int(machine.lua(KEEP))
    machine.lua(ENV + 'for number = 1, 5 do env["large" .. number] = nil end')
    assert int(machine.lua(KEEP)) >= beside + 2
    machine.lua(ENV + "env.left = nil")


@pytest.mark.fresh
def test_sessions_find_memory_where_scripts_hold_all(machine: Machine) -> None:
    machine.copy_to(b'kept = ("x"):rep(1 << 9):rep(1 << 11)', "/lib/modules/lua/keeper.lua")
    machine.succeed("lunatik run keeper", "echo 1 > /sys/module/lunatik/parameters/total_memory")
    assert machine.lua("#(('y'):rep(1 << 20))") == str(1 << 20)
    assert "total_memory" in machine.execute("lunatik run other").stderr
    machine.succeed("lunatik stop keeper")


@pytest.mark.fresh
@pytest.mark.parametrize("context", ["process", "softirq"])
def test_stopped_runtimes_that_left_nothing_do_not_count(machine: Machine, context: str) -> None:
    """Though what they had goes a little later, and their objects may still be there."""
    machine.copy_to(
        b"""
        local table = require("rcu").table()
        for number = 1, 100 do table["key" .. number] = require("data").new(8) end
        return function() return table end
        """,
        "/lib/modules/lua/tidy.lua",
    )
    machine.succeed(FEW)
    machine.lua(
        f"""
        local kept = {{}}
        for number = 1, 100 do
            kept[number] = require("lunatik").runtime("tidy", "{context}")
            kept[number]:stop()
        end
        """,
        timeout=60,
    )


def test_by_name_stops_all_of_that_name(machine: Machine) -> None:
    machine.copy_to(b"return 1", "/lib/modules/lua/twin.lua")
    made = """
        local lunatik = require("lunatik")
        for number = 1, 5 do lunatik._ENV["twin" .. number] = lunatik.runtime("twin") end
    """
    machine.lua(made)
    assert machine.succeed("lunatik list").count("twin") == 5
    machine.succeed("lunatik stop twin")
    assert machine.succeed("lunatik list") == ""
    machine.fail("lunatik stop twin")


def test_no_script_stops_a_session(machine: Machine) -> None:
    machine.copy_to(
        b"""
        local lunatik = require("lunatik")
        print("stopped one: " .. tostring(lunatik.stop("lunatik")))
        require("lunatik.runner").shutdown()
        """,
        "/lib/modules/lua/hostile.lua",
    )
    # Its globals would be gone with it.
    said = machine.succeed(
        "exec 3<>/dev/lunatik; echo 'kept = 7' >&3; cat <&3; cat <&3;"
        "lunatik run hostile 3>&-; echo 'return kept' >&3; cat <&3"
    )
    assert said == "7\n"
    machine.succeed("dmesg | grep 'hostile: stopped one: false'")


#: More than the queue of the works runs at once (core/module.c: 256).
MANY = 300


@pytest.mark.fresh
@pytest.mark.limit(240)
def test_more_than_a_work_queue_holds(machine: Machine) -> None:
    """Each stop waits for a script that nothing but its kill ends."""
    machine.copy_to(
        b"""
        local linux = require("linux")
        return function() while true do pcall(linux.schedule, 2000) end end
        """,
        "/lib/modules/lua/deaf.lua",
    )
    machine.succeed(
        "cd /sys/module/lunatik/parameters; "
        f"echo {MANY + 20} > max_runtimes; echo {64 << 20} > memory"
    )
    machine.lua(
        f"""
        local lunatik, thread = require("lunatik"), require("thread")
        for _ = 1, {MANY} do
            local deaf = lunatik.runtime("deaf", "process", {{instructions = 1 << 50}})
            thread.run(deaf, "deaf")
        end
        """,
        timeout=100,
    )
    assert machine.succeed("lunatik list").count("deaf") == MANY
    machine.succeed("lunatik stop deaf", timeout=60)
    machine.wait_until_succeeds('test -z "$(lunatik list)"', timeout=60)
