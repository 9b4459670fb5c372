# SPDX-License-Identifier: GPL-2.0-only
"""device: files in /dev, and whose task it is that calls their scripts."""

from __future__ import annotations

import pytest
from forgets import FORGETS

from lab.vm.errors import CommandFailed
from lab.vm.machine import Machine


@pytest.mark.parametrize("name", ["", ".", "a/b", "\\0", "ab\\0x", "x" * 200])
def test_names_that_no_file_could_have_are_refused(machine: Machine, name: str) -> None:
    with pytest.raises(CommandFailed, match="invalid device name"):
        machine.lua(f'require("device").new{{name = "{name}"}}')


def test_what_is_refused_is_forgotten(machine: Machine) -> None:
    machine.lua(
        """
        local device = require("device")
        local one = device.new{name = "once"}
        local kept = setmetatable({}, {__mode = "k"})
        local function try()
            local again = {name = "once"}
            kept[again] = true
            local ok, why = pcall(device.new, again)
            assert(not ok and tostring(why):find("EEXIST"), why)
        end
        try()
        collectgarbage()
        collectgarbage()
        assert(next(kept) == nil)
        one:stop()
        """
    )


def test_what_is_stopped_is_forgotten(machine: Machine) -> None:
    machine.lua(
        FORGETS
        + """
        local device = require("device")
        forgets(100, function(kept)
            local driver = {name = "once"}
            kept[driver] = true
            local one = device.new(driver)
            one:stop()
            one:stop()
        end)
        """
    )


def test_a_file_outlives_the_stop_of_its_device(machine: Machine) -> None:
    machine.copy_to(
        b"""
        local one
        one = require("device").new{
            name = "once",
            open = function() one:stop() end,
            read = function() return "x" end,
            release = function() print("once is closed") end,
        }
        """,
        "/lib/modules/lua/once.lua",
    )
    machine.succeed(
        "lunatik run once",
        "exec 5< /dev/once; test $(head -c 1 <&5) = x && ! test -e /dev/once && exec 5<&-",
        "dmesg | grep 'once is closed'",
        "lunatik stop once",
    )


def test_a_release_that_cannot_be_looked_up(machine: Machine) -> None:
    """The file is forgotten all the same: its table goes with the stopped device."""
    script = b"""
    local device = require("device")
    local kept = setmetatable({}, {__mode = "k"})
    local made = false
    local driver = setmetatable({name = "once", read = function() return "x" end}, {
        __index = function(_, name) if made and name == "release" then error("no release") end end,
    })
    kept[driver] = true
    local one = device.new(driver)
    driver, made = nil, true
    device.new{name = "asks", read = function()
        one:stop()
        collectgarbage()
        return next(kept) and "kept" or "gone", 0
    end}
    """
    machine.copy_to(script, "/lib/modules/lua/once.lua")
    machine.succeed("lunatik run once", "head -c 1 < /dev/once", "dmesg | grep 'no release'")
    assert machine.succeed("head -c 4 < /dev/asks") == "gone"


def test_a_reader_does_not_choose_what_is_loaded(machine: Machine) -> None:
    """A callback may load a script first: not one that its caller has put in the place."""
    machine.succeed("mkdir /tmp/theirs")
    for directory, word in (("/lib/modules/lua", "ours"), ("/tmp/theirs", "evil")):
        machine.copy_to(f'return function() return "{word}" end', f"{directory}/helper.lua")
    script = b"""
    require("device").new{name = "asks", read = function() return require("helper")() end}
    """
    machine.copy_to(script, "/lib/modules/lua/asks.lua")
    machine.succeed("lunatik run asks")
    theirs = "mount --bind /tmp/theirs /lib/modules/lua && grep -q evil /lib/modules/lua/helper.lua"
    said = machine.succeed(f"unshare -m sh -c '{theirs} && head -c 4 /dev/asks'")
    assert said == "ours"
