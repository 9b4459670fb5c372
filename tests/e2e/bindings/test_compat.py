# SPDX-License-Identifier: GPL-2.0-only
"""docs/compat.md: what it says is here has Lunatik 4.4's names, what it says is absent is not."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from lab.manifest import ROOT
from lab.vm.machine import Machine

PAGE = (ROOT / "docs" / "compat.md").read_text()

_INTEGERS = "byte int8 uint8 int16 uint16 int32 uint32 int64 number"
_BYTES = " ".join(f"get{kind} set{kind}" for kind in (*_INTEGERS.split(), "string"))

#: Lunatik 4.4's functions of each library; those of interrupt runtimes stand apart.
FUNCTIONS = {
    "lunatik": "runtime _ENV",
    "lunatik.runner": "run spawn stop list shutdown startup",
    "thread": "run shouldstop current",
    "linux": "random schedule time difftime ifindex ifaddr errname numcpus tracing lookup",
    "rcu": "table map",
    "data": "new",
    "fifo": "new",
    "completion": "new",
    "mailbox": "inbox outbox",
    "device": "new",
    "byteorder": " ".join(
        f"{way}{bits}{back}"
        for bits in (16, 32, 64)
        for way, back in (
            ("hton", ""), ("ntoh", ""),
            ("htobe", ""), ("htole", ""), ("be", "toh"), ("le", "toh"),
        )
    ),
    "notifier": "netdevice keyboard vterm",
    "cpu": "num_possible num_present num_online stats "
    "foreach_possible foreach_present foreach_online",
}  # fmt: skip
IN_INTERRUPT = {
    "netfilter": ("softirq", "register"),
    "xtable": ("softirq", "match target"),
    "xdp": ("softirq", "attach detach"),
    "probe": ("hardirq", "new"),
}

#: An object, and its methods.
METHODS = {
    'lunatik.runtime("other")': "resume stop",
    'require("data").new(8)': f"{_BYTES} checksum resize",
    'require("fifo").new(8)': "push pop close",
    'require("completion").new()': "complete wait",
    'require("mailbox").inbox(64)': "receive",
    'require("mailbox").outbox(64)': "send",
    'require("thread").current()': "task stop",
    'require("struct"){{"port", "be16"}}': "pack unpack fieldsize size",
    'require("notifier").netdevice(print)': "stop",
}

#: What only hooks hand out.
PACKET = "ifindex vlan data resize checksum forward copy connmark"

CHUNK = """
local lunatik = require("lunatik")
local thing = {thing}
for name in ("{names}"):gmatch("%S+") do
    if thing[name] == nil then error("no " .. name, 0) end
end
"""


def rows() -> dict[str, str]:
    """Module -> works, differs, absent or ours."""
    found = re.findall(r"^\| `([^`]+)` \| (works|differs|ours|absent) \|", PAGE, re.MULTILINE)
    assert found
    return dict(found)


def test_every_module_has_its_row() -> None:
    here = {*FUNCTIONS, *IN_INTERRUPT, "skb", "struct"}
    assert here <= set(rows())


@pytest.mark.parametrize("library", FUNCTIONS)
def test_functions(machine: Machine, library: str) -> None:
    machine.lua(CHUNK.format(thing=f'require("{library}")', names=FUNCTIONS[library]))


@pytest.mark.parametrize("library", IN_INTERRUPT)
def test_functions_in_interrupts(script: Callable[..., None], library: str) -> None:
    context, names = IN_INTERRUPT[library]
    script(CHUNK.format(thing=f'require("{library}")', names=names), context=context)


@pytest.mark.parametrize("thing", METHODS)
def test_methods(machine: Machine, other: Callable[[str], None], thing: str) -> None:
    other("return function() end")
    machine.lua(CHUNK.format(thing=thing, names=METHODS[thing]))


def test_methods_of_a_packet(machine: Machine, script: Callable[..., None]) -> None:
    look = CHUNK.format(thing="skb", names=PACKET)
    script(
        f"""
        local netfilter, nf = require("netfilter"), require("linux.nf")
        netfilter.register{{
            hook = function(skb)
                {look}
                print("has all names")
                return nf.action.ACCEPT
            end,
            pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_OUT,
        }}
        """,
        context="softirq",
    )
    machine.succeed("bash -c 'echo > /dev/udp/127.0.0.1/9'")
    machine.wait_until_succeeds("dmesg | grep 'has all names'")


def test_absent_is_absent(machine: Machine) -> None:
    absent = [name for name, how in rows().items() if how == "absent"]
    assert "socket" in absent
    for name in absent:
        done = machine.execute(f"lunatik -e 'require(\"{name}\")'")
        assert f"module '{name}' not found" in done.stderr, name
