# SPDX-License-Identifier: GPL-2.0-only
"""Packets of an enemy: filters in Lua judge them as their eBPF twins do."""

from __future__ import annotations

import itertools

import pytest
from filters import FILTERS, LUA, STANDALONE, tell_sources
from traffic import hostile
from twins import HERE, XDP, attach, carry, detach, load, packed, run

from lab.testing.bpf import Compiler
from lab.vm.machine import Machine


@pytest.mark.usefixtures("hooks")
@pytest.mark.slow
@pytest.mark.limit(400)
@pytest.mark.amount(10_000, few=500)
def test_hostile_packets_are_judged_alike(router: Machine, bpf: Compiler, amount: int) -> None:
    router.copy_to(packed(hostile(amount, seed=30)), "/tmp/frames")
    # What passes is sent back to where it came from, before anybody looks at it.
    back = ("client", "c0")

    program = bpf(HERE / "filters.bpf.c", "-DSEND_BACK")
    lua = LUA.replace("action.PASS", "action.TX")

    other = load(router, program, "other")
    router.succeed(
        f"nsenter --net=/run/netns/client bpftool net attach xdpdrv pinned {other}/progs/let_in"
        " dev c0"
    )
    for name, mode in itertools.product(FILTERS, XDP):
        where = load(router, program, f"{name}-{mode}")
        tell_sources(router, where)
        attach(router, where, name, mode=mode)
        by_ebpf = carry(router, to=back, timeout=180)
        detach(router, mode=mode)
        run(router, lua + STANDALONE.format(filter=name, mode=mode))
        by_lua = carry(router, to=back, timeout=180)
        router.succeed("lunatik stop filter")
        missing, extra = (set(a) - set(b) for a, b in ((by_ebpf, by_lua), (by_lua, by_ebpf)))
        assert sorted(by_lua) == sorted(by_ebpf), (
            name,
            mode,
            [f.hex() for f in (*missing, *extra)][:5],
        )
        assert amount // 20 < len(by_ebpf) < amount, (name, mode)
