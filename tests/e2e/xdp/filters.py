# SPDX-License-Identifier: GPL-2.0-only
"""The filters that are there twice: as scripts in filters.lua, as eBPF in filters.bpf.c."""

from __future__ import annotations

from collections.abc import Iterable

from traffic import BAD
from twins import HERE

from lab.vm.machine import Machine

FILTERS = ("drop_source", "rate_limit", "syn_flood", "sni_block")


def knowing(bad: Iterable[str]) -> str:
    """The script's part that knows the bad sources, and calls none of the filters yet."""
    return (HERE / "filters.lua").read_text() + "".join(
        f"sources[string.char({source.replace('.', ', ')})] = true\n" for source in bad
    )


LUA = knowing(BAD)

#: Appended to it: one of them on a device.
STANDALONE = """
xdp.attach(function(ctx) return judges.{filter}(ctx:packet()) end,
    {{dev = "{device}", mode = "{mode}", fallback = "closed"}})
"""

#: The same, asked by call_lua.bpf.c, which wants its question answered.
CALLED = """
xdp.attach(function(packet, argument)
    argument:setuint32(4, argument:getuint32(0) + 1)
    return judges.{filter}(packet)
end)
"""


def tell_sources(machine: Machine, where: str, bad: Iterable[str] = BAD) -> None:
    """Put the bad sources into the map of a loaded filters.bpf.c."""
    for source in bad:
        key = source.replace(".", " ")
        machine.succeed(f"bpftool map update pinned {where}/sources key {key} value 1")
