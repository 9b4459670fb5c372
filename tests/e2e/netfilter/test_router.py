# SPDX-License-Identifier: GPL-2.0-only
"""Filters on a router between machines, with the programs that people use."""

from __future__ import annotations

import re

import pytest
from servers import serve
from wiring import REFUSALS, packed, refusals, tally

from lab.net.network import Network
from lab.vm.machine import Machine


@pytest.mark.topology("router")
@pytest.mark.limit(200)
def test_filters_between_machines(net: Network) -> None:
    client, router, server = net.nodes("client", "router", "server")
    four, six = (net.address("server", version=version) for version in (4, 6))
    serve(server)
    for name in ("dns_block", "sni_block", "conntrack_count"):
        router.succeed(f"lunatik run examples/{name} softirq")

    for address in (four, six):
        assert "NXDOMAIN" in client.succeed(f"drill @{address} www.blocked.example")
        assert "10.9.9.9" in client.succeed(f"drill @{address} www.other.example")

    curl = "curl -sk -m 30 -o /dev/null --resolve {0}:443:{1} https://{0}/"
    addresses = (four, f"[{six}]")
    for address in addresses:
        client.succeed(curl.format("www.other.example", address))
    # It serves one after the other, and waits for who was reset.
    for address in addresses:
        refused = client.execute(curl.format("www.blocked.example", address))
        assert refused.status in (35, 56), "reset in the handshake"

    # Segmentation offload and all; the counter sees what passes.
    client.succeed(f"iperf3 -c {four} -n 2M", timeout=90)
    host = packed(net.address("client"))
    counted = router.lua(f"return require('lunatik')._ENV.bytes['{host}']")
    # On a slow host some pass uncounted, when the script has used up its share.
    assert int(counted) > 1 << 19
    for name in ("dns_block", "sni_block", "conntrack_count"):
        router.succeed(f"lunatik stop examples/{name}")


def knock(client: Machine, address: str) -> None:
    """Datagrams to the three ports, in order."""
    client.succeed(f"for port in 7001 7002 7003; do echo | nc -u -w1 {address} $port; done")


@pytest.mark.topology("router")
@pytest.mark.limit(200)
def test_more_filters_between_machines(net: Network) -> None:
    client, router, server = net.nodes("client", "router", "server")
    far = [net.address("server", version=version) for version in (4, 6)]
    near = [net.address("router", version=version) for version in (4, 6)]
    server.succeed(
        "dnsmasq --port=53 --no-resolv --no-hosts --pid-file=/tmp/dns.pid "
        "--address=/example/10.9.9.9 --address=/example/fd09::9",
    )
    for machine, addresses, port in ((server, far, 8080), (router, near, 2222)):
        for address in addresses:
            machine.succeed(f"nc -lk {address} {port} </dev/null >/dev/null 2>&1 &")
            client.wait_until_succeeds(f"nc -z -w 3 {address} {port}")
    tally(client, "input", **REFUSALS)

    router.succeed("lunatik run examples/quarantine_watch")
    for name in ("dns_rewrite", "tcp_reject", "port_knock", "quarantine"):
        router.succeed(f"lunatik run examples/{name} softirq")
    for number, address in enumerate(far, start=1):
        assert "192.0.2.80" in client.succeed(f"drill @{address} any.example A")
        assert "2001:db8::50" in client.succeed(f"drill @{address} any.example AAAA")
        assert "refused" in client.execute(f"nc -vz -w 3 {address} 8080").stderr
        assert refusals(client) == (number, 0), "by a reset"
    for address in near:
        client.fail(f"nc -z -w 2 {address} 2222")
        knock(client, address)
        client.succeed(f"nc -z -w 2 {address} 2222")

    # A VLAN is new on both sides; what comes in by the old card is as it was.
    for machine, end in ((client, 2), (router, 1)):
        machine.succeed(
            "ip link add link eth0 name new type vlan id 7; ip link set new up",
            f"ip address add 10.0.7.{end}/24 dev new",
        )
    client.fail("ping -c 1 -W 2 10.0.7.1")
    client.succeed(f"ping -c 1 {near[0]}; ping -c 1 {far[0]}")
    index = router.succeed("cat /sys/class/net/new/ifindex").strip()
    router.lua(f"require('lunatik')._ENV.quarantine['{index}'] = nil")
    # Whom nobody has answered.
    client.succeed("ip neigh flush dev new")
    client.succeed("ping -c 1 -W 2 10.0.7.1")

    router.succeed("lunatik run examples/rate_limit softirq")
    for address in far:
        # Unanswered ones are sent ten milliseconds apart.
        said = client.execute(f"ping -f -c 500 {address}").stdout
        answered = re.search(r"(\d+) received", said)
        assert answered, said
        assert 20 <= int(answered[1]) <= 250
    for name in ("rate_limit", "dns_rewrite", "tcp_reject", "port_knock", "quarantine"):
        router.succeed(f"lunatik stop examples/{name}")
    client.succeed(f"nc -z -w 3 {far[0]} 8080")
