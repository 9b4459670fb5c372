# SPDX-License-Identifier: GPL-2.0-only
"""What real clients talk to: DNS, TLS and iperf3."""

from __future__ import annotations

from wiring import within

from lab.vm.machine import Machine

SERVERS = """
dnsmasq --port=53 --no-resolv --no-hosts --pid-file=/tmp/dns.pid \\
    --address=/example/10.9.9.9 --address=/example/fd09::9
iperf3 -s -D
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=lab \\
    -keyout /tmp/key -out /tmp/cert 2>/dev/null
openssl s_server -accept 443 -www -key /tmp/key -cert /tmp/cert >/dev/null 2>&1 &
"""


def serve(machine: Machine, *, namespace: str = "") -> None:
    """Start them, and wait until they listen."""
    inside = within(namespace)
    machine.succeed(f"{inside}sh -e <<'END'\n{SERVERS}END")
    for port in (443, 5201):
        machine.wait_until_succeeds(f"{inside}ss -Htln 'sport = :{port}' | grep -q .")
