# SPDX-License-Identifier: GPL-2.0-only
"""What makes a clone itself: its own randomness, clock, name and addresses.

The executor in the guest does it: it has waited there since the snapshot, and
the first exec() in a fresh clone takes longer than all the rest of cloning.
"""

from __future__ import annotations

import secrets
import time

from lab.vm import argv
from lab.vm.executor import Executor
from lab.vm.spec import MachineSpec

#: Bytes of fresh randomness that a clone gets.
SEED = 64

#: Seconds for the answer; it takes 0.01.
TIMEOUT = 10.0


async def wake(executor: Executor, spec: MachineSpec) -> None:
    """Make the guest the machine of this spec.

    Raises:
        GuestSilent: it did not answer.
        InfraError: it could not.
    """
    await executor.wake(words(spec), timeout=TIMEOUT * spec.patience)


def words(spec: MachineSpec) -> str:
    """What the guest is told: seed, time, name, and each card's address."""
    cards = [
        f"eth{number}={argv.mac(spec, number, nic)}" for number, nic in enumerate(spec.slots())
    ]
    return " ".join([secrets.token_hex(SEED), str(time.time_ns()), spec.name, *cards])
