# SPDX-License-Identifier: GPL-2.0-only
"""Packets of an enemy: filters in Lua judge them as their eBPF twins do."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from filters import CALLED, FILTERS, LUA, STANDALONE, tell_sources
from traffic import hostile
from twins import HERE, XDP, attach, carry, detach, load, packed, run

from lab.testing.bpf import Compiler
from lab.vm.machine import Machine


@pytest.mark.usefixtures("hooks")
@pytest.mark.slow
@pytest.mark.limit(600)
@pytest.mark.amount(10_000, in_ci=500)
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
    router.module("lunatik_xdp")
    caller = load(router, bpf(HERE / "call_lua.bpf.c"), "caller")
    for name, mode in itertools.product(FILTERS, XDP):
        where = load(router, program, f"{name}-{mode}")
        tell_sources(router, where)
        attach(router, where, name, mode=mode)
        by_ebpf = carry(router, to=back, timeout=180)
        detach(router, mode=mode)
        assert amount // 20 < len(by_ebpf) < amount, (name, mode)

        run(router, lua + STANDALONE.format(filter=name, device="r0", mode=mode))
        by_lua = carry(router, to=back, timeout=180)
        router.succeed("lunatik stop filter")
        assert not unlike(by_ebpf, by_lua), (name, mode)

        run(router, lua + CALLED.format(filter=name), name="verdict")
        attach(router, caller, "call_lua", mode=mode)
        by_both = carry(router, to=back, timeout=180)
        detach(router, mode=mode)
        router.succeed("lunatik stop verdict")
        assert not unlike(by_ebpf, by_both), (name, mode, "called")


def unlike(some: list[bytes], others: list[bytes]) -> list[str]:
    """A few frames that are not as often in one as in the other; frames come in any order."""
    one, other = Counter(some), Counter(others)
    return [frame.hex() for frame in [*(one - other), *(other - one)]][:5]
