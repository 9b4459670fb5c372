# SPDX-License-Identifier: GPL-2.0-only
"""What the tests of the libraries share: scripts on the machine, errors that must come."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.vm.machine import Machine

RAISES = """
local function raises(what, f, ...)
    local ok, why = pcall(f, ...)
    assert(not ok, "no error, but wanted: " .. what)
    assert(tostring(why):find(what, 1, true), tostring(why) .. ", but wanted: " .. what)
end
"""


@pytest.fixture
def script(machine: Machine) -> Callable[..., None]:
    """script(text, context="softirq", name="other"): put it on the machine and run it."""

    def run(text: str, *, context: str = "process", name: str = "script") -> None:
        put(machine, name, text)
        machine.succeed(f"lunatik run {name} {context}")

    return run


@pytest.fixture
def check(machine: Machine) -> Callable[[str], str]:
    """check(chunk): run it with raises(what, f, ...) at hand; what it returned."""
    return lambda chunk: machine.lua(RAISES + chunk)


@pytest.fixture
def other(machine: Machine) -> Callable[[str], None]:
    """other(text): a script that a chunk can load with lunatik.runtime("other")."""
    return lambda text: put(machine, "other", text)


def put(machine: Machine, name: str, text: str) -> None:
    """Write a script, with raises() at hand, where runtimes find it."""
    machine.copy_to((RAISES + text).encode(), f"/lib/modules/lua/{name}.lua")
