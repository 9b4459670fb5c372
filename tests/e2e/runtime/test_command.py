# SPDX-License-Identifier: GPL-2.0-only
"""The command `lunatik` of the guest."""

from __future__ import annotations

import pytest

from lab.vm.machine import Machine

HELLO = 'print("hello") return function(...) return 42, "text", true, nil, ... end\n'
TICKER = """
local linux, thread = require("linux"), require("thread")
return function()
	while not thread.shouldstop() do linux.schedule(20) end
	print("ended by itself")
end
"""


def put(machine: Machine, name: str, text: str) -> None:
    """Lay a script where the kernel looks for it."""
    machine.copy_to(text.encode(), f"/lib/modules/lua/{name}.lua")


@pytest.mark.parametrize(
    ("chunk", "answer"),
    [
        ("return 1 + 1", "2"),
        ("1 + 1", "2"),
        ("print('a', 1) return nil, true", "a\t1\nnil\ttrue"),
        ("x = 5", ""),
        ('return ("%s%n"):rep(2)', "%s%n%s%n"),
    ],
)
def test_chunk_answers(machine: Machine, chunk: str, answer: str) -> None:
    assert machine.lua(chunk) == answer


def test_chunk_that_fails(machine: Machine) -> None:
    done = machine.execute("lunatik -e 'local x = nil; return x.y'")
    assert done.status == 1
    assert done.stderr.startswith("lunatik: lunatik:1: attempt to index a nil value (local 'x')")
    assert "stack traceback" in done.stderr


@pytest.mark.parametrize("words", ["-e 'return 1'", "-e - </dev/null", "list", "</dev/null"])
def test_whoever_may_not_is_told_so(machine: Machine, words: str) -> None:
    machine.lua("return 1")  # which makes the device
    become = "import os, sys; os.setgid(65534); os.setuid(65534); os.execv('/bin/sh', sys.argv[1:])"
    done = machine.execute(f'python3 -c "{become}" sh -c "lunatik {words}"')
    assert done.status == 1
    assert done.stderr.endswith("lunatik: cannot open /dev/lunatik\n"), done.stderr


def test_large_output_is_complete(machine: Machine) -> None:
    text = machine.lua("for i = 1, 20000 do print(i) end")
    assert text.splitlines() == [str(i) for i in range(1, 20001)]


def test_globals_last_within_a_session_only(machine: Machine) -> None:
    out = machine.execute("lunatik", input="x = 1\nx + 1\nerror('no')\nx + 2\n")
    assert out.stdout.splitlines() == ["2", "3"]
    assert "no" in out.stderr
    assert machine.lua("return x") == "nil"


HISTORY = "/root/.lunatik_history"
ON_A_TERMINAL = "HOME=/root exec script -qefc lunatik /run/typescript"

#: Types standard input, and Ctrl-D once 'done' is answered and the prompt is back:
#: a key that comes while the terminal is not in readline's hands is lost.
TYPED = f"""
rm -f /run/typescript
(
	cat
	until tr -d '\\r' </run/typescript | tail -n 2 | tr '\\n' '|' | grep -q '^done|> $'
	do sleep 0.1
	done
	printf '\\004'
) 2>/dev/null | ({ON_A_TERMINAL})"""


@pytest.mark.fresh
def test_on_a_terminal_it_answers_and_remembers(machine: Machine) -> None:
    done = machine.execute(TYPED, input="x = 6\nfor i = 1, 2 do\nx = x * i\nend\nx - 5\n'done'\n")
    assert done.status == 0
    assert "7" in done.stdout.replace("\r", "").split("\n")
    # It finds there what it was asked before.
    machine.execute(TYPED, input="y = 1\n'done'\n")
    typed = machine.succeed(f"cat {HISTORY}").splitlines()
    assert typed[-4:] == ["x - 5", "'done'", "y = 1", "'done'"]


@pytest.mark.fresh
def test_a_terminal_that_goes_takes_no_history_along(machine: Machine) -> None:
    machine.succeed(
        "mkfifo /run/keys; "
        f"sh -c 'echo $$ >/run/script; {ON_A_TERMINAL}' </run/keys >/dev/null 2>&1 & "
        "exec 3>/run/keys; echo 'gone = 1' >&3; sleep 2; kill -KILL $(cat /run/script)"
    )
    machine.wait_until_succeeds(f"grep -x 'gone = 1' {HISTORY}")


def test_session_goes_on_after_a_broken_cap(machine: Machine) -> None:
    out = machine.execute("lunatik", input="x = 1\nwhile true do end\nreturn x\n", timeout=60)
    assert "instruction budget exceeded" in out.stderr
    assert out.stdout.splitlines() == ["nil"]


@pytest.mark.parametrize(
    "words",
    [
        "bogus",
        "run",
        "run a softirq percpu more",
        "run hello hard",
        "spawn",
        "stop",
        "-e",
        "list x",
    ],
)
def test_wrong_use(machine: Machine, words: str) -> None:
    done = machine.execute(f"lunatik {words}")
    assert done.status == 2
    assert "usage:" in done.stderr


def test_run_list_stop(machine: Machine) -> None:
    put(machine, "hello", HELLO)
    machine.succeed("lunatik run hello")
    assert machine.succeed("lunatik list").split() == ["hello", "process", "running"]
    again = machine.execute("lunatik run hello")
    assert again.status == 1
    assert again.stderr.startswith("lunatik: hello is already running")
    machine.succeed("lunatik stop hello")
    assert machine.succeed("lunatik list") == ""
    missing = machine.execute("lunatik stop hello")
    assert missing.status == 1
    assert missing.stderr.startswith("lunatik: hello is not running")
    machine.wait_until_succeeds("dmesg | grep 'hello: hello'")


def test_suffix_is_no_part_of_the_name(machine: Machine) -> None:
    put(machine, "hello", HELLO)
    machine.succeed("lunatik run hello.lua softirq")
    assert machine.succeed("lunatik list").split() == ["hello", "softirq", "running"]
    machine.succeed("lunatik stop hello")


def test_percpu_makes_one_for_each(machine: Machine) -> None:
    put(machine, "hello", HELLO)
    count = int(machine.lua('return require("linux").numcpus()'))
    machine.succeed("lunatik run hello softirq percpu")
    names = [line.split()[0] for line in machine.succeed("lunatik list").splitlines()]
    assert names == [f"hello:{cpu}" for cpu in range(count)]
    machine.succeed("lunatik stop hello")
    assert machine.succeed("lunatik list") == ""


@pytest.mark.parametrize("words", ["hello", "hello softirq percpu"])
def test_at_once_only_one_gets_in(machine: Machine, words: str) -> None:
    put(machine, "hello", 'require("linux").schedule(200) return function() end')
    run = f"lunatik run {words} 2>&1"
    said = machine.succeed(f"for i in 1 2 3 4 5; do {{ {run} && echo in; }} & done; wait")
    assert said.count("in\n") == 1, said
    assert said.count("hello is already running") == 4, said
    assert len(machine.succeed("lunatik list").splitlines()) == 1
    assert "already running" in machine.execute("lunatik run hello").stderr
    machine.succeed("lunatik stop hello", f"{run} | {{ ! grep . ; }}", "lunatik stop hello")


@pytest.mark.machine(cpus=2)
def test_percpu_that_fails_leaves_nothing(machine: Machine) -> None:
    put(
        machine,
        "half",
        'local e = require("lunatik")._ENV '
        "e.turns = (e.turns or 0) + 1 assert(e.turns < 2, 'no more')",
    )
    done = machine.execute("lunatik run half softirq percpu")
    assert done.status == 1
    assert "no more" in done.stderr
    assert machine.succeed("lunatik list") == ""
    machine.succeed("lunatik -e 'require(\"lunatik\")._ENV.turns = -9'")
    machine.succeed("lunatik run half softirq percpu", "lunatik stop half")


@pytest.mark.machine(cpus=2)
def test_percpu_that_is_killed_leaves_nothing(machine: Machine) -> None:
    put(machine, "slow", 'require("linux").schedule(1500)')
    machine.succeed(
        "setsid lunatik run slow softirq percpu >/dev/null 2>&1 & echo $! >/tmp/pid",
        # One runs, the other is being loaded.
        "until lunatik list | grep -q slow:1; do sleep 0.1; done",
        "kill -KILL -$(cat /tmp/pid)",
    )
    machine.wait_until_succeeds('test -z "$(lunatik list)"')
    machine.succeed("lunatik run slow softirq percpu", "lunatik stop slow")


def test_spawn_and_stop(machine: Machine) -> None:
    put(machine, "ticker", TICKER)
    machine.succeed("lunatik spawn ticker", "ps -e | grep ticker", "lunatik stop ticker")
    machine.fail("ps -e | grep ticker")
    machine.wait_until_succeeds("dmesg | grep 'ended by itself'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("local x =\n= 1", "broken.lua:2: unexpected symbol near '='"),
        ("local function f()\n error('why')\nend\nf()", "broken.lua:2: why"),
        ("return 1.5", "floating point"),
        ("error({})", "table value"),
        ("require('nosuch')", "module 'nosuch' not found"),
        ("require('broken')", "overflow"),
    ],
)
def test_script_that_fails_leaves_nothing(machine: Machine, text: str, message: str) -> None:
    put(machine, "broken", text)
    for context in ("process", "softirq", "hardirq"):
        done = machine.execute(f"lunatik run broken {context}")
        assert done.status == 1
        assert done.stderr.startswith("lunatik: ")
        assert message in done.stderr
    assert machine.succeed("lunatik list") == ""


@pytest.mark.parametrize("name", ["../etc/passwd", "a b", "/etc/passwd", "a;b", "%n%n", "a:1"])
def test_name_that_is_none(machine: Machine, name: str) -> None:
    done = machine.execute(f"lunatik run '{name}'")
    assert done.status == 1
    chunk = f'require("lunatik").runtime("{name}")'
    assert "cannot open" in (found := machine.execute(f"lunatik -e '{chunk}'").stderr) or (
        "invalid script name" in found
    )


def test_top_tells_what_is_used(machine: Machine) -> None:
    put(machine, "hello", HELLO)
    machine.succeed("lunatik run hello")
    rows = {line.split()[0]: line.split() for line in machine.succeed("lunatik top").splitlines()}
    assert float(rows["hello"][3]) > 1
    assert rows["RUNTIME"][1:4] == ["CONTEXT", "STATE", "MEMORY"]


def test_unload_stops_everything(machine: Machine) -> None:
    put(machine, "hello", HELLO)
    put(machine, "ticker", TICKER)
    machine.succeed(
        "lunatik run hello softirq",
        "lunatik spawn ticker",
        'lunatik -e \'require("lunatik")._ENV.left = require("rcu").table()\'',
        "lunatik unload",
    )
    machine.fail("lunatik status", "grep -q ^lunatik /proc/modules")
    machine.succeed("lunatik load", "lunatik status")
    assert machine.lua("1 + 1") == "2"


def test_module_in_use_stays(machine: Machine) -> None:
    put(machine, "hello", HELLO)
    machine.succeed("lunatik run hello")
    machine.fail("rmmod lunatik")
    machine.succeed("lunatik stop hello")


HOARDER = """
local lunatik = require("lunatik")
local kept = {}
while true do
	local ok, runtime = pcall(lunatik.runtime, "hello")
	if not ok then break end
	kept[#kept + 1] = runtime
end
return function() return #kept end
"""


@pytest.mark.fresh
def test_sessions_find_room_where_scripts_have_taken_all(machine: Machine) -> None:
    put(machine, "hello", HELLO)
    put(machine, "hoarder", HOARDER)
    machine.succeed("echo 8 > /sys/module/lunatik/parameters/max_runtimes", "lunatik run hoarder")
    assert len(machine.succeed("lunatik list").splitlines()) == 8
    full = machine.execute("lunatik run hello")
    assert full.status == 1
    assert full.stderr.startswith("lunatik: ")
    assert "ENFILE: too many runtimes" in full.stderr
    machine.succeed("lunatik stop hoarder")
    machine.wait_until_succeeds('test -z "$(lunatik list)"')
    machine.succeed("lunatik run hello", "lunatik stop hello")


#: What a script may do to lunatik._ENV, where the runner looks for it.
DEEDS = {
    "takes-the-table-out": "env.runtimes = nil",
    "replaces-the-table": 'env.runtimes = require("rcu").table()',
    "replaces-it-by-a-number": "env.threads = 7",
    "hides-itself": "env.hidden, env.runtimes.wily = env.runtimes.wily, nil",
    "is-no-object": "env.runtimes.wily = true",
    "is-false": "env.runtimes.wily = false",
    "leaves-it-in-the-end": """
        local t = setmetatable({}, {__gc = function() env.runtimes.late = true end})
        env.runtimes.wily = env.runtimes.wily, t
        hold = t
    """,
    "is-no-thread": 'env.threads.wily = require("fifo").new(8)',
    "is-anothers-thread": 'env.threads.wily = require("thread").current()',
}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_stop_reaches_whatever_a_script_has_done(machine: Machine, deed: str) -> None:
    script = f"""
    local env = require("lunatik")._ENV
    return function() return pcall(function() {deed} end) end
    """
    put(machine, "wily", script)
    put(machine, "hello", HELLO)
    machine.succeed("lunatik run wily")
    said = machine.lua('return require("lunatik")._ENV.runtimes.wily:resume()')
    fixed = deed.startswith(("env.runtimes =", "env.threads ="))
    assert ("is there to stay" in said) == fixed, said
    machine.succeed("lunatik stop wily")
    assert machine.succeed("lunatik list") == ""
    machine.succeed("lunatik run hello", "lunatik stop hello")
    # Nothing that it has left there holds a module.
    machine.succeed("lunatik unload", "lunatik load")
