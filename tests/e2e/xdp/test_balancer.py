# SPDX-License-Identifier: GPL-2.0-only
"""The example of a load balancer, between machines."""

from __future__ import annotations

from pathlib import Path

import pytest
from twins import HERE, run

from lab.net.network import Network
from lab.vm.machine import Machine

EXAMPLE = Path(__file__).parents[3] / "lunatik-src/examples/xdp_balancer.lua"

SERVICE = "10.0.9.9"


def forwarded(machine: Machine) -> int:
    """Packets of IPv4 that the kernel's stack has sent on."""
    names, values = (
        line.split()
        for line in machine.succeed("cat /proc/net/snmp").splitlines()
        if line.startswith("Ip:")
    )
    return int(values[names.index("ForwDatagrams")])


@pytest.mark.usefixtures("hooks")
@pytest.mark.topology("router")
@pytest.mark.limit(200)
@pytest.mark.parametrize("mode", ["native", "generic"])
def test_connections_are_spread_over_servers(net: Network, mode: str) -> None:
    client, balancer, server = net.nodes("client", "router", "server")
    first = net.address("server")
    second = first.rsplit(".", 1)[0] + ".77"
    server.copy_to(HERE / "service.py", "/tmp/service.py")
    client.copy_to(HERE / "service.py", "/tmp/service.py")
    server.succeed(
        f"ip addr add {second}/24 dev eth0", "python3 /tmp/service.py serve 80 > /tmp/log 2>&1 &"
    )
    server.wait_for_open_port(80)
    script = EXAMPLE.read_text()
    for old, new in {
        '"10.0.2.2", "10.0.2.3"': f'"{first}", "{second}"',
        "{dev = INSIDE,": f'{{dev = INSIDE, mode = "{mode}",',
        "{dev = OUTSIDE,": f'{{dev = OUTSIDE, mode = "{mode}",',
    }.items():
        assert old in script
        script = script.replace(old, new)
    # What goes through must not depend on how fast an emulated CPU is.
    balancer.succeed("echo 100 > /sys/module/lunatik/parameters/interrupt_share")
    run(balancer, script, name="balancer")

    said = client.succeed(f"python3 /tmp/service.py ask {SERVICE} 80 16", timeout=120)
    answers = [line.split() for line in said.splitlines()]
    assert {address for address, _ in answers} == {first, second}
    assert {size for _, size in answers} == {"131072"}
    # The kernel had to see a few, for the neighbours' sake, of more than a thousand.
    assert forwarded(balancer) < 100
    # Other traffic goes its way, and nobody answers once the script has gone.
    client.succeed(f"ping -c 1 -W 5 {first}")
    balancer.succeed("lunatik stop balancer")
    client.fail(f"timeout 5 python3 /tmp/service.py ask {SERVICE} 80 1")
