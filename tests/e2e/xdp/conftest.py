# SPDX-License-Identifier: GPL-2.0-only
"""One machine with two ends of a wire inside it: c0 in namespace "client", and r0."""

from __future__ import annotations

import pytest
from orders import Pair
from twins import WIRE, XDP

from lab.testing.bpf import Compiler
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

# Succeeds when a ping through the wire is answered.
REACH = b"""#!/bin/sh
exec ip netns exec client ping -q -c 1 -W 1 192.0.2.2
"""


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A machine that can ping itself through the wire, by the command `reach`."""
    machine.succeed(WIRE)
    machine.copy_to(REACH, "/usr/bin/reach", mode=0o755)
    machine.wait_until_succeeds("reach")
    return machine


@pytest.fixture
def hooks(kernel: KernelInfo) -> None:
    """Only for kernels that carry kernel-patches/xdplua."""
    if not kernel.has("XDP_LUA"):
        pytest.skip("this kernel has no XDP hooks for Lua (kernel-patches/xdplua)")


# The other side: what r0 takes is sent on through r1 to s0 in namespace "server".
# In native mode veth takes redirected frames only where NAPI runs; and what
# arrives must not be answered.
BEYOND = """set -e
ip netns add server
ip -batch - <<END
link add s0 netns server address 02:00:00:00:00:04 type veth peer name r1 address 02:00:00:00:00:03
addr add 198.51.100.1/24 dev r1
link set r1 up
neigh add 198.51.100.2 lladdr 02:00:00:00:00:04 dev r1
END
ip -n server -batch - <<END
addr add 198.51.100.2/24 dev s0
link set s0 up
END
ip netns exec server ethtool -K s0 gro on
ip netns exec server nft -f - <<END
table netdev t {
    chain i {
        type filter hook ingress device s0 priority 0; policy drop;
    }
}
END
sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.r0.rp_filter=0
"""


@pytest.fixture
def router(node: Machine) -> Machine:
    """The same, and a server behind it that hears and says nothing.

    Scripts may use all of the CPU: a verdict must not depend on how fast it is.
    """
    node.succeed(BEYOND, "echo 100 > /sys/module/lunatik/parameters/interrupt_share")
    return node


@pytest.fixture
def pairs(router: Machine, bpf: Compiler) -> list[Pair]:
    """A program and its twin for each mode, with maps of their own, on one machine."""
    return [Pair(router, bpf, mode) for mode in XDP]
