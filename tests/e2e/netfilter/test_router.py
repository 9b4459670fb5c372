# SPDX-License-Identifier: GPL-2.0-only
"""Filters on a router between machines, with the programs that people use."""

from __future__ import annotations

import pytest

from lab.net.network import Network


@pytest.mark.topology("router")
@pytest.mark.limit(200)
def test_filters_between_machines(net: Network) -> None:
    client, router, server = net.nodes("client", "router", "server")
    four, six = (net.address("server", version=version) for version in (4, 6))
    server.succeed(
        "dnsmasq --port=53 --no-resolv --no-hosts --pid-file=/tmp/dns.pid "
        "--address=/example/10.9.9.9 --address=/example/fd09::9",
        "iperf3 -s -D",
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=lab "
        "-keyout /tmp/key -out /tmp/cert 2>/dev/null",
        "openssl s_server -accept 443 -www -key /tmp/key -cert /tmp/cert >/dev/null 2>&1 &",
    )
    server.wait_for_open_port(443)
    server.wait_for_open_port(5201)
    for name in ("dns_block", "sni_block", "conntrack_count"):
        router.succeed(f"lunatik run examples/{name} softirq")

    for address in (four, six):
        assert "NXDOMAIN" in client.succeed(f"drill @{address} www.blocked.example")
        assert "10.9.9.9" in client.succeed(f"drill @{address} www.other.example")

    curl = "curl -sk -m 30 -o /dev/null --resolve {0}:443:{1} https://{0}/"
    client.succeed(curl.format("www.other.example", four))
    refused = client.execute(curl.format("www.blocked.example", four))
    assert refused.status in (35, 56), "reset in the handshake"

    # Segmentation offload and all; the counter sees what passes.
    client.succeed(f"iperf3 -c {four} -n 2M", timeout=90)
    packed = net.address("client").replace(".", "\\")
    counted = router.lua(f"return require('lunatik')._ENV.bytes['\\{packed}']")
    # On a slow host some pass uncounted, when the script has used up its share.
    assert int(counted) > 1 << 19
    for name in ("dns_block", "sni_block", "conntrack_count"):
        router.succeed(f"lunatik stop examples/{name}")
