# SPDX-License-Identifier: GPL-2.0-only
"""A script on a card (virtio_net, native mode) while packets come in: it goes in every way."""

from __future__ import annotations

import pytest
from scripts import AGAIN, TELLING
from twins import HERE, run

from lab.net.network import Network
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = [
    pytest.mark.usefixtures("hooks"),
    pytest.mark.topology("pair"),
    pytest.mark.limit(180),
]

SCRIPT = TELLING.format(device="eth0", mode="native")

#: Ten at a time: a machine with one CPU that another sends to without a pause does
#: nothing else any more, with or without a script.
FLOOD = """
import itertools, socket, time
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for number in itertools.count():
    if number % 10 == 0:
        time.sleep({pause})
    try:
        here.sendto(b"flood", ("{address}", 9000 + number % 100))
    except OSError:
        pass
"""

#: Whom nobody listens to there is not answered either.
DEAF = """nft -f - <<END
table inet t {
    chain i {
        type filter hook prerouting priority -300;
        udp dport 9000-9099 drop
    }
}
END"""

RECEIVED = "/sys/class/net/eth0/statistics/rx_packets"


@pytest.fixture
def flooded(net: Network, kernel: KernelInfo) -> Machine:
    """The one on the right, whose card the other floods."""
    left, right = net.nodes("left", "right")
    left.wait_until_succeeds(f"ping -c 1 -W 1 {net.address('right')}")
    right.succeed(DEAF)
    right.copy_to(HERE / "show_hook.py", "/tmp/show_hook.py")
    flood = FLOOD.format(address=net.address("right"), pause=0.002 * kernel.patience)
    left.copy_to(flood.encode(), "/tmp/flood.py")
    left.succeed("timeout 900 python3 /tmp/flood.py >/tmp/flood 2>&1 &")
    right.wait_until_succeeds(f"test $(cat {RECEIVED}) -gt 100")
    return right


def received(machine: Machine) -> int:
    return int(machine.succeed(f"cat {RECEIVED}"))


def shown(machine: Machine) -> str:
    return machine.succeed("python3 /tmp/show_hook.py eth0").strip()


def met(machine: Machine) -> None:
    """Wait until the script has met a hundred; next time others."""
    machine.wait_until_succeeds("dmesg | grep 'met 100'")
    machine.succeed("dmesg -C")


@pytest.mark.amount(200, in_ci=20)
def test_attached_and_detached_again_and_again(flooded: Machine, amount: int) -> None:
    flooded.copy_to(SCRIPT.encode(), "/lib/modules/lua/filter.lua")
    flooded.copy_to(AGAIN.format(rounds=amount).encode(), "/lib/modules/lua/again.lua")
    before = received(flooded)
    flooded.succeed("lunatik run again", "lunatik stop again", timeout=150)
    assert received(flooded) > before + amount, "it was no flood"
    assert shown(flooded) == "0 -"
    run(flooded, SCRIPT)
    met(flooded)


def test_card_is_taken_from_its_driver(flooded: Machine, net: Network) -> None:
    run(flooded, SCRIPT)
    met(flooded)
    card = flooded.succeed("basename $(readlink /sys/class/net/eth0/device)").strip()
    driver = "/sys/bus/virtio/drivers/virtio_net"
    flooded.succeed(f"echo {card} > {driver}/unbind", "! ip link show eth0")
    assert "running" in flooded.succeed("lunatik list | grep filter")
    flooded.succeed("lunatik stop filter", f"echo {card} > {driver}/bind")
    assert shown(flooded) == "0 -"
    # And may have one again.
    flooded.succeed(f"ip address add {net.address('right')}/24 dev eth0", "ip link set eth0 up")
    run(flooded, SCRIPT)
    met(flooded)


def test_namespace_goes_and_the_card_comes_back(flooded: Machine, net: Network) -> None:
    flooded.succeed(
        "ip netns add room",
        "ip link set eth0 netns room",
        f"ip -n room address add {net.address('right')}/24 dev eth0",
        "ip -n room link set eth0 up",
    )
    flooded.copy_to(SCRIPT.encode(), "/lib/modules/lua/filter.lua")
    flooded.succeed("ip netns exec room lunatik run filter softirq")
    met(flooded)
    flooded.succeed("ip netns delete room")
    flooded.wait_until_succeeds("ip link show eth0")
    assert shown(flooded) == "0 -"
    flooded.succeed("lunatik stop filter", "ip link set eth0 up")
    run(flooded, SCRIPT)
    met(flooded)


#: Writes into one datagram behind its first piece, and cuts pieces off another.
PIECES = """
local action = require("linux.xdp")
require("xdp").attach(function(ctx, packet)
    if #packet ~= 8042 then return action.PASS end
    packet:setstring(6000, "Lua!")
    if packet:getstring(36, 2) == "\\0\\9" then
        packet:setstring(40, "\\0\\0")  -- no sum, as UDP over IPv4 may
        return action.PASS
    end
    local there = packet:getstring(5999, 6)
    ctx:adjust_tail(-4000)
    local cut = ctx:packet()
    print("cut", there, #cut, cut:getuint8(4041), pcall(cut.getuint8, cut, 4042))
    return action.DROP
end, {dev = "eth0", mode = "native", fallback = "closed"})
"""

LISTENER = b"""
import socket
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind(("", 9))
open("/tmp/ready", "w")
came = here.recv(9000)
print(len(came), came[5957:5963].decode(), came.count(b"A"))
"""

SEND = 'python3 -c \'import socket; socket.socket(2, 2).sendto(b"A" * 8000, ("{}", {}))\''


def test_packet_in_pieces_is_read_written_and_cut(net: Network, kernel: KernelInfo) -> None:
    left, right = net.nodes("left", "right")
    there = net.address("right")
    for machine in (left, right):
        machine.succeed("ip link set eth0 mtu 9000")
    left.wait_until_succeeds(f"ping -c 1 -W 1 {there}")
    right.copy_to(PIECES.encode(), "/lib/modules/lua/filter.lua")
    if kernel.line < (6, 3):
        # Its driver has no XDP for packets in pieces.
        refused = right.execute("lunatik run filter softirq")
        assert refused.status == 1 and "EINVAL" in refused.stderr
        return
    right.succeed("lunatik run filter softirq")
    right.copy_to(LISTENER, "/tmp/listener.py")
    right.succeed("timeout 60 python3 /tmp/listener.py > /tmp/heard 2>&1 &")
    right.wait_until_succeeds("test -e /tmp/ready")
    left.succeed(SEND.format(there, 9))
    right.wait_until_succeeds("test -s /tmp/heard")
    assert right.succeed("cat /tmp/heard").split() == ["8000", "ALua!A", "7996"]
    for _ in range(20):
        left.succeed(SEND.format(there, 10))
    right.wait_until_succeeds("test $(dmesg | grep -c ALua) -ge 20")
    lines = right.succeed("dmesg | grep ALua").splitlines()
    assert {tuple(line.split()[-7:-3]) for line in lines} == {("ALua!A", "4042", "65", "false")}
