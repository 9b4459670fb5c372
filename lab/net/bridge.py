# SPDX-License-Identifier: GPL-2.0-only
"""The node that stands in a wire: what comes in at one card goes out at the other.

Frames are redirected by tc, not bridged: a Linux bridge keeps link-local
frames (STP, LLDP) for itself, and this is to be a wire.  The faults of one
direction are the root qdisc of the card that the frames leave by.
"""

from __future__ import annotations

from lab.net.impairment import Impairment
from lab.vm.machine import Machine

#: A wire neither speaks nor alters: no ARP, no IPv6, no merging of segments.
_SETUP = """set -e
for card in eth0 eth1; do
	echo 1 >/proc/sys/net/ipv6/conf/$card/disable_ipv6
	ethtool -K $card gro off lro off 2>/dev/null || ethtool -K $card gro off
	ip link set $card arp off promisc on mtu 9000 2>/dev/null ||
		ip link set $card arp off promisc on
	ip link set $card up
	tc qdisc add dev $card clsact
done
tc filter add dev eth0 ingress prio 9 matchall action mirred egress redirect dev eth1
tc filter add dev eth1 ingress prio 9 matchall action mirred egress redirect dev eth0
"""


class Bridge:
    """A wire with faults; cards 0 and 1 are its ends."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.succeed(_SETUP)

    def impair(self, faults: Impairment, *, toward: int) -> None:
        """Set the faults of frames that leave at card `toward`; replaces what was set."""
        self.machine.succeed("\n".join(commands(faults, toward=toward)))


def commands(faults: Impairment, *, toward: int) -> list[str]:
    """The lines of sh that set the faults of one direction."""
    out, into = f"eth{toward}", f"eth{1 - toward}"
    netem = faults.netem()
    lines = ["set -e"]
    if netem:
        lines.append(f"tc qdisc replace dev {out} root netem {' '.join(netem)}")
    else:
        # There is none to delete on a wire that was good already.
        lines.append(f"tc qdisc del dev {out} root 2>/dev/null || true")
    lines.append(f"tc filter del dev {into} ingress prio 1 2>/dev/null || true")
    if faults.mtu is not None:
        lines.append(
            f"tc filter add dev {into} ingress prio 1 protocol all basic "
            f"match 'meta(pkt_len gt {faults.mtu})' action drop"
        )
    return lines
