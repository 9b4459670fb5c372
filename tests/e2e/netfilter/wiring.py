# SPDX-License-Identifier: GPL-2.0-only
"""Networks of namespaces inside one machine, and scripts for hooks in them.

Routed: a -- ra (the machine) rb -- b, both families.  Bridged: a and b at
ports pa and pb of br0.
"""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path

from lab.vm.machine import Machine

HERE = Path(__file__).parent

#: One ip for all of it: starting programs is what takes time here.
#: No detection of duplicates, of link-local addresses least of all: as long as it
#: lasts a router asks for no neighbour (ndisc_send_ns()), and packets wait.
ROUTED = """set -e
sysctl -qw net.core.devconf_inherit_init_net=1 net.ipv6.conf.default.accept_dad=0
ip netns add a
ip netns add b
sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
ip -batch - <<END
link add ra type veth peer name va netns a
link add rb type veth peer name vb netns b
address add 10.1.0.1/24 dev ra
address add 10.2.0.1/24 dev rb
address add fd01::1/64 dev ra nodad
address add fd02::1/64 dev rb nodad
link set ra up
link set rb up
END
for end in a/1 b/2; do
ip -n ${end%/*} -batch - <<END
link set lo up
address add 10.${end#*/}.0.2/24 dev v${end%/*}
address add fd0${end#*/}::2/64 dev v${end%/*} nodad
link set v${end%/*} up
route add default via 10.${end#*/}.0.1
route add ::/0 via fd0${end#*/}::1
END
done
"""

BRIDGED = """set -e
sysctl -qw net.core.devconf_inherit_init_net=1 net.ipv6.conf.default.accept_dad=0
ip netns add a
ip netns add b
ip -batch - <<END
link add br0 type bridge
address add 10.3.0.1/24 dev br0
address add fd03::1/64 dev br0 nodad
link set br0 up
link add pa type veth peer name va netns a
link add pb type veth peer name vb netns b
link set pa master br0 up
link set pb master br0 up
END
for end in a/2 b/3; do
ip -n ${end%/*} -batch - <<END
link set lo up
address add 10.3.0.${end#*/}/24 dev v${end%/*}
address add fd03::${end#*/}/64 dev v${end%/*} nodad
link set v${end%/*} up
END
done
"""

#: For @pytest.mark.machine: tests that lay them all the same find them laid.
LAID = ("modprobe lunatik", ROUTED)

#: What a test has that wants them not, or others, where its neighbours have LAID.
BARE = ("modprobe lunatik",)

#: set16(view, offset, value), for hooks that change lengths.
SET16 = 'local set16 = require("packet").set16'

#: port(skb): the UDP port that an IP packet goes to; nil if it is none.
PORT = """
local netfilter = require("netfilter")
local nf = require("linux.nf")
local ACCEPT <const>, DROP <const> = nf.action.ACCEPT, nf.action.DROP
local function port(skb)
    local packet = skb:data("net")
    if #packet < 28 then return end
    local version = packet:getuint8(0) >> 4
    local start
    if version == 4 and packet:getuint8(9) == 17 then
        start = (packet:getuint8(0) & 15) * 4
    elseif version == 6 and packet:getuint8(6) == 17 then
        start = 40
    else
        return
    end
    return packet:getuint8(start + 2) << 8 | packet:getuint8(start + 3), start + 8, packet
end
"""

HOOK = (
    PORT
    + """
netfilter.register{{
    hook = function(skb) {body} end,
    pf = nf.proto.{pf}, hooknum = nf.{hook}, {options}
}}
"""
)


def wire(machine: Machine, plan: str) -> Machine:
    """Lay the wires, unless they are, and bring the probes."""
    for program in ("flow.py", "clients.py"):
        machine.copy_to(HERE / program, f"/tmp/{program}")
    machine.succeed(f"[ -e /run/netns/b ] || {{ {plan} }}")
    return machine


def run(machine: Machine, script: str, *, name: str = "hook", namespace: str = "") -> None:
    """Run a softirq script, maybe in a namespace."""
    machine.copy_to(script.encode(), f"/lib/modules/lua/{name}.lua")
    machine.succeed(f"{within(namespace)}lunatik run {name} softirq")


def hook(
    machine: Machine,
    pf: str,
    place: str,
    body: str,
    *,
    options: str = "",
    namespace: str = "",
    before: str = "",
) -> None:
    """Run a softirq script with one hook, at "inet.FORWARD" and the like, and what it needs."""
    run(
        machine,
        before + HOOK.format(body=body, pf=pf, hook=place, options=options),
        namespace=namespace,
    )


def hooks(machine: Machine, pf: str, ports: dict[str, int], *, options: str = "") -> None:
    """Run a softirq script whose hook at each place drops what goes to one port."""
    script = PORT + "".join(
        f"""
        netfilter.register{{
            hook = function(skb) return port(skb) == {number} and DROP or ACCEPT end,
            pf = nf.proto.{pf}, hooknum = nf.{place}, {options}
        }}"""
        for place, number in ports.items()
    )
    run(machine, script)


def flow(machine: Machine, sender: str, receiver: str, address: str, *ports: int) -> list[str]:
    """Send a datagram to each port; what became of them."""
    words = " ".join(map(str, ports))
    return machine.succeed(f"python3 /tmp/flow.py {sender} {receiver} {address} {words}").split()


def packed(address: str) -> str:
    """An address as a script has it, for a string of Lua's."""
    return "".join(f"\\{byte:03d}" for byte in ipaddress.ip_address(address).packed)


def tally(machine: Machine, hook: str, *, namespace: str = "", **matches: str) -> None:
    """Have nft count what matches at "forward" and the like, behind all scripts; see tallied()."""
    lines = [
        "add table inet tally",
        f"add chain inet tally {hook} {{ type filter hook {hook} priority 500; }}",
    ]
    for name, match in matches.items():
        lines.append(f"add counter inet tally {name}")
        lines.append(f"add rule inet tally {hook} {match} counter name {name}")
    machine.succeed(f"{within(namespace)}nft -f - <<'END'\n" + "\n".join(lines) + "\nEND")


def tallied(machine: Machine, name: str, *, namespace: str = "") -> int:
    """How many packets a counter of tally() has seen."""
    shown = machine.succeed(f"{within(namespace)}nft list counter inet tally {name}")
    found = re.search(r"packets (\d+)", shown)
    assert found, shown
    return int(found[1])


#: How somebody may be refused, for tally() in the "input" of who asked.
REFUSALS = {
    "resets": "tcp flags & rst == rst",
    "four": "icmp type destination-unreachable icmp code port-unreachable",
    "six": "icmpv6 type destination-unreachable icmpv6 code port-unreachable",
}


def refusals(machine: Machine, *, namespace: str = "") -> tuple[int, int]:
    """How many resets came, and how many of ICMP's "port unreachable"."""
    resets, four, six = (tallied(machine, name, namespace=namespace) for name in REFUSALS)
    return resets, four + six


def within(namespace: str) -> str:
    """What goes before a command to have it run in a namespace; nothing for the machine's own."""
    return f"ip netns exec {namespace} " if namespace else ""
