# SPDX-License-Identifier: GPL-2.0-only
"""What a clone is told, before it is anybody's."""

from __future__ import annotations

import time
from pathlib import Path

from lab.vm import wake
from lab.vm.spec import MachineSpec, Nic

SPEC = MachineSpec(
    name="alice", kernel=Path("/k"), root=Path("/r"), nics=(Nic(mac="52:54:00:1:2:3"),)
)


def test_each_has_a_seed_of_its_own() -> None:
    seeds = [wake.words(SPEC).split()[0] for _ in range(2)]
    assert seeds[0] != seeds[1]
    assert [len(bytes.fromhex(seed)) for seed in seeds] == [wake.SEED] * 2


def test_time_name_and_cards() -> None:
    _, clock, name, *cards = wake.words(SPEC).split()
    assert abs(int(clock) / 1e9 - time.time()) < 5
    assert name == "alice"
    assert cards[0] == "eth0=52:54:00:1:2:3"
    assert len(cards) == len(SPEC.slots())
