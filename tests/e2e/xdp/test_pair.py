# SPDX-License-Identifier: GPL-2.0-only
"""A script on the card of a machine, in native mode of its driver: virtio_net."""

from __future__ import annotations

from pathlib import Path

import pytest
from twins import run

from lab.net.network import Network

SHOW = Path(__file__).with_name("show_hook.py")

#: Says "Lua" where a datagram to port 9 says "lab", and drops ICMP echoes.
SCRIPT = """
local action = require("linux.xdp")
local ICMP <const>, UDP <const> = 1, 17
require("xdp").attach(function(ctx, packet)
    if #packet < 45 or packet:getuint16(12) ~= 8 then return action.PASS end
    local protocol = packet:getuint8(23)
    if protocol == ICMP then return action.DROP end
    if protocol == UDP and packet:getstring(36, 2) == "\\0\\9"
            and packet:getstring(42, 3) == "lab" then
        packet:setstring(42, "Lua")
        packet:setstring(40, "\\0\\0")  -- no sum, as UDP over IPv4 may
    end
    return action.PASS
end, {dev = "eth0", mode = "native", fallback = "closed"})
"""

LISTENER = b"""
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("", 9))
open("/tmp/ready", "w")
print(here.recv(100).decode())
"""


@pytest.mark.usefixtures("hooks")
@pytest.mark.topology("pair")
@pytest.mark.limit(120)
def test_script_in_a_driver_of_hardware(net: Network) -> None:
    left, right = net.nodes("left", "right")
    there = net.address("right")
    assert right.succeed("ethtool -i eth0 | grep ^driver").split() == ["driver:", "virtio_net"]
    left.wait_until_succeeds(f"ping -c 1 -W 1 {there}")
    right.copy_to(SHOW, "/tmp/show_hook.py")
    run(right, SCRIPT)
    assert right.succeed("python3 /tmp/show_hook.py eth0").split() == ["1", "filter"]
    left.fail(f"ping -c 2 -W 1 {there}")

    right.copy_to(LISTENER, "/tmp/listener.py")
    right.succeed("timeout 60 python3 /tmp/listener.py > /tmp/heard 2>&1 &")
    right.wait_until_succeeds("test -e /tmp/ready")
    left.succeed(f"bash -c 'echo -n lab > /dev/udp/{there}/9'")
    right.wait_until_succeeds("grep -x Lua /tmp/heard")

    # Large transfers go on.
    right.succeed("iperf3 -s -D -1")
    right.wait_for_open_port(5201)
    left.succeed(f"iperf3 -c {there} -n 4M")

    right.succeed("lunatik stop filter")
    left.succeed(f"ping -c 1 -W 2 {there}")
    assert right.succeed("python3 /tmp/show_hook.py eth0").split() == ["0", "-"]
