# SPDX-License-Identifier: GPL-2.0-only
"""One machine with two ends of a wire inside it: c0 in namespace "client", and r0."""

from __future__ import annotations

import pytest

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

WIRE = (
    "ip netns add client",
    "ip link add c0 netns client address 02:00:00:00:00:01 type veth"
    " peer name r0 address 02:00:00:00:00:02",
    "ip -n client addr add 192.0.2.1/24 dev c0",
    "ip addr add 192.0.2.2/24 dev r0",
    "ip -n client link set c0 up",
    "ip link set r0 up",
    # Hooks that eat ARP must not be what a ping fails of.
    "ip -n client neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev c0",
    "ip neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev r0",
)

# Succeeds when a ping through the wire is answered.
REACH = b"""#!/bin/sh
exec ip netns exec client ping -q -c 1 -W 1 192.0.2.2
"""


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A machine that can ping itself through the wire, by the command `reach`."""
    machine.succeed(*WIRE)
    machine.copy_to(REACH, "/usr/bin/reach", mode=0o755)
    machine.wait_until_succeeds("reach")
    return machine


@pytest.fixture
def hooks(kernel: KernelInfo) -> None:
    """Only for kernels that carry kernel-patches/xdplua."""
    if not kernel.has("XDP_LUA"):
        pytest.skip("this kernel has no XDP hooks for Lua (kernel-patches/xdplua)")
