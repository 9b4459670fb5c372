# SPDX-License-Identifier: GPL-2.0-only
"""A rate is no count: what was spent is earned again, by every means alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest
from counters import uptime
from filters import CALLED, LUA, STANDALONE
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from traffic import SERVER
from twins import HERE, MARK, ROUTER, attach, carry, detach, load, packed, run

from lab.testing.bpf import Compiler
from lab.vm.machine import Machine

pytestmark = [pytest.mark.usefixtures("hooks"), pytest.mark.limit(180)]

#: Packets at once, as in filters.bpf.c, and seconds for one more.
MOST, EARNED = 20, 0.5

BURST = 30

#: Who is silent for a second is forgotten, if nothing else is said.
HASHLIMIT = (
    "-m hashlimit --hashlimit-name rate --hashlimit-mode srcip --hashlimit-htable-expire 60000"
    f" --hashlimit-above {round(1 / EARNED)}/second --hashlimit-burst {MOST}"
)


#: The filters of filters.lua, with that time.
SCRIPT = LUA.replace("EARNED <const> = 3600000000000", f"EARNED <const> = {round(EARNED * 1e9)}")


@contextmanager
def by_iptables(machine: Machine, _: Compiler) -> Iterator[None]:
    rule = f"-t raw {{}} PREROUTING -i r0 {HASHLIMIT} -j DROP"
    machine.succeed(f"iptables-legacy {rule.format('-A')}")
    yield
    machine.succeed(f"iptables-legacy {rule.format('-D')}")


@contextmanager
def by_ebpf(machine: Machine, bpf: Compiler) -> Iterator[None]:
    program = bpf(HERE / "filters.bpf.c", f"-DEARNED={round(EARNED * 1e9)}ULL")
    attach(machine, load(machine, program, "filters"), "rate_limit", mode="native")
    yield
    detach(machine, mode="native")


@contextmanager
def by_both(machine: Machine, bpf: Compiler) -> Iterator[None]:
    machine.module("lunatik_xdp")
    run(machine, SCRIPT + CALLED.format(filter="rate_limit"), name="verdict")
    where = load(machine, bpf(HERE / "call_lua.bpf.c"), "caller")
    attach(machine, where, "call_lua", mode="native")
    yield
    detach(machine, mode="native")
    machine.succeed("lunatik stop verdict")


@contextmanager
def by_lua(machine: Machine, _: Compiler) -> Iterator[None]:
    run(machine, SCRIPT + STANDALONE.format(filter="rate_limit", device="r0", mode="native"))
    yield
    machine.succeed("lunatik stop filter")


WAYS = [by_iptables, by_ebpf, by_both, by_lua]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_what_was_spent_is_earned_again(
    router: Machine, bpf: Compiler, way: Callable[[Machine, Compiler], AbstractContextManager[None]]
) -> None:
    datagram = IP(src="192.0.2.7", dst=SERVER) / UDP(sport=4000, dport=9999)
    frames = [bytes(Ether(src=MARK, dst=ROUTER) / datagram)] * BURST
    router.copy_to(packed(frames), "/tmp/frames")

    def burst() -> tuple[float, int, float]:
        """When it began, how many passed, when it was over."""
        before = uptime(router)
        return before, len(carry(router)), uptime(router)

    with way(router, bpf):
        began, first, over = burst()
        assert MOST <= first <= MOST + (over - began) / EARNED + 1
        router.succeed("sleep 3")
        again, second, ended = burst()
    # While it was quiet at least, and in all that time at most.
    assert min((again - over) / EARNED - 1, MOST) <= second
    assert second <= min((ended - began) / EARNED + 1, MOST + (ended - again) / EARNED + 1)
