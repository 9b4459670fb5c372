# SPDX-License-Identifier: GPL-2.0-only
"""One filter by iptables, by eBPF, by eBPF that calls Lua, by Lua alone: the same packets pass."""

from __future__ import annotations

from collections import Counter

import pytest
from filters import CALLED, FILTERS, LUA, STANDALONE, tell_sources
from traffic import BAD, Traffic, asked
from twins import HERE, attach, carry, detach, load, packed, run

from lab.testing.bpf import Compiler
from lab.vm.machine import Machine

pytestmark = [pytest.mark.usefixtures("hooks"), pytest.mark.limit(180)]

PER_SOURCE, PER_SERVICE = 20, 10
"""As in filters.bpf.c."""

# What SNI looks like for "blocked.example": type, size, size of the list, type, size, name.
_SNI = "|00000014001200000f|blocked.example"

RULES = {
    "drop_source": [f"-s {source} -j DROP" for source in BAD],
    "rate_limit": [
        "-m hashlimit --hashlimit-name rate --hashlimit-mode srcip"
        f" --hashlimit-upto 1/hour --hashlimit-burst {PER_SOURCE} -j ACCEPT",
        "-j DROP",
    ],
    "syn_flood": [
        "-p tcp --syn -m hashlimit --hashlimit-name syn --hashlimit-mode dstip,dstport"
        f" --hashlimit-upto 1/hour --hashlimit-burst {PER_SERVICE} -j ACCEPT",
        "-p tcp --syn -j DROP",
    ],
    "sni_block": [f"-p tcp --dport 443 -m string --algo bm --hex-string '{_SNI}' -j DROP"],
}


class Filtered:
    """The router with one of the filters at a time, and what passes it."""

    def __init__(self, machine: Machine, bpf: Compiler, name: str) -> None:
        self.machine, self.bpf, self.name = machine, bpf, name

    def by_iptables(self) -> list[bytes]:
        rules = [f"iptables-legacy -t raw -A PREROUTING -i r0 {r}" for r in RULES[self.name]]
        self.machine.succeed(*rules)
        passed = carry(self.machine)
        self.machine.succeed("iptables-legacy -t raw -F")
        return passed

    def by_ebpf(self, mode: str) -> list[bytes]:
        where = self.loaded("filters", mode)
        tell_sources(self.machine, where)
        attach(self.machine, where, self.name, mode=mode)
        passed = carry(self.machine)
        detach(self.machine, mode=mode)
        return passed

    def by_both(self, mode: str) -> list[bytes]:
        self.machine.module("lunatik_xdp")
        run(self.machine, LUA + CALLED.format(filter=self.name), name="verdict")
        attach(self.machine, self.loaded("call_lua", mode), "call_lua", mode=mode)
        passed = carry(self.machine)
        detach(self.machine, mode=mode)
        self.machine.succeed("lunatik stop verdict")
        return passed

    def by_lua(self, mode: str) -> list[bytes]:
        run(self.machine, LUA + STANDALONE.format(filter=self.name, mode=mode))
        passed = carry(self.machine)
        self.machine.succeed("lunatik stop filter")
        return passed

    def loaded(self, file: str, mode: str) -> str:
        program = self.bpf(HERE / f"{file}.bpf.c")
        return load(self.machine, program, f"{file}-{mode}")


def expected(name: str, frames: list[bytes]) -> int:
    """How many pass, found out here once more."""
    spent: Counter[bytes] = Counter()
    passed = 0
    for frame in frames:
        size = (frame[14] & 15) * 4
        tcp = frame[14 + size :] if frame[23] == 6 else b""
        if name == "drop_source":
            drop = frame[26:30] in {bytes(map(int, source.split("."))) for source in BAD}
        elif name == "rate_limit":
            spent[frame[26:30]] += 1
            drop = spent[frame[26:30]] > PER_SOURCE
        elif name == "syn_flood":
            syn = bool(tcp) and tcp[13] & 0x17 == 2
            spent[tcp[2:4]] += syn
            drop = syn and spent[tcp[2:4]] > PER_SERVICE
        else:
            drop = tcp[2:4] == b"\x01\xbb" and b"\x00\x0fblocked.example" in tcp
        passed += not drop
    return passed


@pytest.mark.parametrize("name", FILTERS)
def test_same_packets_pass(router: Machine, bpf: Compiler, name: str) -> None:
    count = asked("LAB_PACKETS", 500)
    frames = Traffic(seed=9).frames(count)
    router.copy_to(packed(frames), "/tmp/frames")
    filtered = Filtered(router, bpf, name)
    everything = carry(router)
    assert len(everything) == count
    # In order only as far as one queue goes: compare what passed, not when.
    rules = sorted(filtered.by_iptables())
    assert expected(name, frames) == len(rules) < count
    assert sorted(filtered.by_ebpf("native")) == rules
    assert sorted(filtered.by_both("native")) == rules
    for mode in ("native", "generic"):
        assert sorted(filtered.by_lua(mode)) == rules, mode
