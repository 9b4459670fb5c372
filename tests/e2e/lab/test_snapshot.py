# SPDX-License-Identifier: GPL-2.0-only
"""What a sanitizer of a real kernel has to say against freezing it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.store import Store
from lab.testing.fixtures import KernelInfo
from lab.vm import snapshot
from lab.vm.machine import Machine

pytestmark = [pytest.mark.fresh, pytest.mark.limit(200), pytest.mark.slow]

#: A process returns to user space with a lock, and lockdep gives up. The scheduler
#: may taint the kernel for it as well, but that is looked at later.
LOCK = "modprobe lkdtm; echo SPINLOCKUP >/sys/kernel/debug/provoke-crash/DIRECT"


def test_a_base_whose_lockdep_is_off_is_refused(
    machine: Machine, kernel: KernelInfo, tmp_path: Path
) -> None:
    if not kernel.has("PROVE_LOCKING"):
        pytest.skip("this kernel has no lockdep")
    machine.shutdown()  # the base takes its place
    spec = replace(machine.spec, prepare=(*machine.spec.prepare, LOCK))
    store = Store(tmp_path / "store")
    with pytest.raises(snapshot.Unfit, match="lockdep has turned itself off"):
        snapshot.make(spec, store)
    assert not list(store.root.glob("artifacts/snapshot/*"))
