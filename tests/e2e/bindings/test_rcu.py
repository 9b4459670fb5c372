# SPDX-License-Identifier: GPL-2.0-only
"""rcu: tables that all runtimes share."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.vm.machine import Machine

Check = Callable[[str], str]


def test_keys_of_the_same_length_are_different(check: Check) -> None:
    # In one bucket, a lookup that compares no more than lengths finds the wrong one.
    check(
        r"""
        local t = require("rcu").table(1)
        t.ab, t.cd, t["a\0"], t["a\1"] = 1, 2, 3, 4
        assert(t.ab == 1 and t.cd == 2 and t["a\0"] == 3 and t["a\1"] == 4)
        assert(t.ef == nil and t.a == nil and t.abc == nil and t[""] == nil)
        t.ab = nil
        assert(t.ab == nil and t.cd == 2)
        """
    )


def test_values_and_what_is_none(check: Check) -> None:
    check(
        """
        local t = require("rcu").table()
        t.yes, t.no, t.least = true, false, math.mininteger
        assert(t.yes == true and t.no == false and t.least == math.mininteger)
        local d = require("data").new(8)
        t.object = d
        assert(t.object == d)
        for _, wrong in ipairs{"text", {}, print, coroutine.create(print)} do
            raises("expected", function() t.key = wrong end)
        end
        raises("expected", function() t[{}] = 1 end)
        raises("", function() t[("x"):rep(1 << 20)] = 1 end)
        for _, n in ipairs{0, -1, 1 << 20, 1 << 40, math.mininteger} do
            raises("bad argument", require("rcu").table, n)
        end
        """
    )


def test_map_visits_all_and_may_change_the_table(check: Check) -> None:
    check(
        """
        local rcu = require("rcu")
        local t, sum = rcu.table(4), 0
        for i = 1, 200 do t["key" .. i] = i end
        rcu.map(t, function(key, value)
            assert(key == "key" .. value)
            sum = sum + value
            t[key] = nil
            t["key" .. 201 - value] = nil
        end)
        rcu.map(t, function(key) error(key .. " is still there") end)
        assert(sum >= 100 * 101 // 2)
        t.a = 1
        raises("stop here", rcu.map, t,
            function() error("stop here") end)
        """
    )


def test_an_object_lives_as_long_as_its_entry(check: Check) -> None:
    check(
        """
        local t = require("rcu").table()
        do
            local d = require("data").new(8)
            d:setstring(0, "kept")
            t.data = d
        end
        collectgarbage() collectgarbage()
        assert(t.data:getstring(0, 4) == "kept")
        local held = t.data
        t.data = nil
        collectgarbage()
        assert(held:getstring(0, 4) == "kept" and t.data == nil)
        """
    )


def test_ten_thousand_entries_released_at_once(machine: Machine) -> None:
    machine.lua(
        """
        local rcu = require("rcu")
        local t = rcu.table(64)
        for i = 1, 10000 do t["key" .. i] = i end
        t = nil
        collectgarbage() collectgarbage()
        """,
        timeout=60,
    )
    assert machine.lua("return 1") == "1"


def test_is_seen_by_other_runtimes(check: Check, other: Callable[[str], None]) -> None:
    other("return function(t) t.answer = t.question + 1 end")
    check(
        """
        local t = require("rcu").table()
        for _, context in ipairs{"process", "softirq", "hardirq"} do
            t.question, t.answer = 41, nil
            local runtime = require("lunatik").runtime("other", context)
            runtime:resume(t)
            assert(t.answer == 42, context)
            runtime:stop()
        end
        """
    )


#: One bucket, and keys that take long to compare: whoever looks one up stands
#: on an entry nearly all the time. A timer then interrupts it.
KEYS = """
local env = require("lunatik")._ENV
local keys = {}
for i = 1, 6 do keys[i] = ("k"):rep(4000) .. i end
"""
READER = (
    KEYS
    + """
local linux, thread = require("linux"), require("thread")
return function()
    local t = env.fought
    while not thread.shouldstop() do
        for turn = 1, 50 do
            for _, key in ipairs(keys) do
                if type(t[key]) ~= KIND then env.missed = true end
            end
            if KIND == "userdata" then collectgarbage() end
        end
        env.reader = (env.reader or 0) + 50
        linux.schedule(1)
    end
end
"""
)
#: Both collect, so that an entry has the last reference to its object.
WRITER = (
    KEYS
    + """
local data = require("data")
require("ticker").new(1, function(count)
    env.fought[keys[count % 6 + 1]] = VALUE
    collectgarbage()
    env.writer = count
end)
"""
)


@pytest.mark.limit(120)
@pytest.mark.parametrize(
    ("kind", "value", "writes"), [("number", "count", 60), ("userdata", "data.new(8)", 1500)]
)
def test_reader_stands_on_what_a_writer_takes_out(
    machine: Machine, kind: str, value: str, writes: int
) -> None:
    machine.lua(
        "local env, count, data = require('lunatik')._ENV, 0, require('data') "
        "env.fought = require('rcu').table(1) "
        f"for i = 1, 6 do env.fought[('k'):rep(4000) .. i] = {value} end"
    )
    reader, writer = READER.replace("KIND", f"'{kind}'"), WRITER.replace("VALUE", value)
    for name, text in (("reader", reader), ("writer", writer)):
        machine.copy_to(text.encode(), f"/lib/modules/lua/{name}.lua")
    # A share of all: what it writes is little, but on a slow host takes long.
    machine.lua(
        "local lunatik = require('lunatik') "
        "lunatik._ENV.runtimes.writer = lunatik.runtime('writer', 'softirq', {share = 100})"
    )
    machine.succeed("lunatik spawn reader")
    enough = f"local e = require('lunatik')._ENV assert(e.reader > 100 and e.writer > {writes})"
    machine.wait_until_succeeds(f'lunatik -e "{enough}"', timeout=60)
    machine.succeed("lunatik stop reader", "lunatik stop writer")
    assert machine.lua("return require('lunatik')._ENV.missed") == "nil"


def test_a_full_bucket_is_paid_for(check: Check, other: Callable[[str], None]) -> None:
    other("return function(t) for i = 1, 100 do local x = t.absent end end")
    check(
        """
        local t = require("rcu").table(1)
        for i = 1, 2000 do t["key" .. i] = i end
        local few = require("lunatik").runtime("other", "process", {instructions = 20000})
        raises("instruction budget exceeded", few.resume, few, t)
        """
    )


def test_tables_hold_no_tables_but_the_kernels_do(check: Check) -> None:
    """One that held itself would stay for ever, and its module with it."""
    check(
        """
        local env, t = require("lunatik")._ENV, require("rcu").table()
        raises("lunatik._ENV", function() t.t = t end)
        raises("lunatik._ENV", function() t.t = require("rcu").table() end)
        raises("lunatik._ENV", function() t.env = env end)
        raises("lunatik._ENV", function() env.env = env end)
        raises("lunatik._ENV", function() env.runtimes.env = env.threads end)
        env.t = t
        assert(env.t == t)
        env.t = nil
        """
    )


def test_a_bucket_has_an_end(check: Check) -> None:
    """Writers walk it with interrupts off."""
    check(
        """
        local rcu = require("rcu")
        local t, more = rcu.table(1), rcu.table(2048)
        for i = 1, 2048 do t["key" .. i] = i end
        raises("too many entries in one bucket", function() t.more = 1 end)
        assert(t.more == nil)
        t.key7 = 8
        assert(t.key7 == 8)
        t.key9 = nil
        t.more = 1
        assert(t.more == 1 and t.key9 == nil)
        raises("too many entries in one bucket", function() t.key9 = 9 end)
        for i = 1, 4096 do more["key" .. i] = i end
        """
    )


def test_what_rcu_has_not_let_go_of_is_bounded(check: Check, other: Callable[[str], None]) -> None:
    """In softirq, where none of it goes as long as the script runs: one key, written often."""
    other(
        """
        local key = ("k"):rep(4000)
        return function(t)
            for i = 1, t.count do t[key] = i end
            return true
        end
        """
    )
    check(
        """
        local lunatik, linux, t = require("lunatik"), require("linux"), require("rcu").table()
        local writer = lunatik.runtime("other", "softirq", {memory = 400000})
        t.count = 50
        assert(writer:resume(t))
        t.count = 400
        raises("not enough memory", writer.resume, writer, t)
        t.count = 50
        for _ = 1, 100 do -- it goes by itself
            if pcall(writer.resume, writer, t) then return end
            linux.schedule(50)
        end
        error("what is gone is still counted")
        """
    )


def test_who_may_sleep_waits_for_rcu(check: Check, other: Callable[[str], None]) -> None:
    other(
        """
        local key = ("k"):rep(4000)
        return function(t) for i = 1, 1000 do t[key] = i end return t[key] end
        """
    )
    check(
        """
        local t = require("rcu").table()
        local writer = require("lunatik").runtime("other", "process", {memory = 400000})
        assert(writer:resume(t) == 1000)
        """
    )
