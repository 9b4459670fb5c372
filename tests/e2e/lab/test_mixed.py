# SPDX-License-Identifier: GPL-2.0-only
"""Different kernels in one network, and the largest of the ready-made ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lab.net.network import Network
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine


@pytest.mark.topology("mixed.yaml")
@pytest.mark.limit(240)
def test_flavours_talk_to_each_other(net: Network) -> None:
    plain, checked = net["plain"], net["checked"]
    plain.fail("test -e /sys/kernel/debug/kmemleak")
    checked.succeed("test -e /sys/kernel/debug/kmemleak")
    for version in (4, 6):
        plain.succeed(f"ping -c 3 -i 0.1 {net.address('checked', version=version)}")


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        # Both stand in the cell of whichever came last, so each run of both has this test.
        pytest.param("6.1", "6.12", marks=pytest.mark.topology("versions-6.1-6.12.yaml")),
        pytest.param("6.12", "7.3", marks=pytest.mark.topology("versions-6.12-7.3.yaml")),
    ],
)
@pytest.mark.limit(240)
def test_versions_talk_to_each_other(net: Network, older: str, newer: str) -> None:
    for name, release in (("older", older), ("newer", newer)):
        assert net[name].succeed("uname -r").startswith(f"{release}.")
        # Each has the modules of its own kernel.
        assert net[name].lua("return 6 * 7") == "42"
    for version in (4, 6):
        address = net.address("newer", version=version)
        net["older"].succeed(f"ping -c 3 -i 0.1 {address}")
    net["newer"].succeed("iperf3 -s -1 -D")
    net["newer"].wait_for_open_port(5201)
    net["older"].succeed(f"iperf3 -c {net.address('newer')} -n 1M")


def test_a_kernel_that_the_run_lacks_skips(start: Callable[..., Machine]) -> None:
    with pytest.raises(pytest.skip.Exception, match=r"wants 0\.1 "):
        start("old", release="0.1")


@pytest.mark.topology("lan16")
@pytest.mark.limit(120)
def test_sixteen_on_a_lan(request: pytest.FixtureRequest, kernel: KernelInfo) -> None:
    if kernel.flavour != "default":
        pytest.skip("sixteen machines under sanitizers want more than a host of this size")
    # Not before: under sanitizers they take three minutes to start.
    net: Network = request.getfixturevalue("net")
    assert len(net.nodes()) == 16
    last = net["n16"]
    for name in net.topology.nodes:
        last.succeed(f"ping -c 1 -W 5 {net.address(name)}")
    # A LAN of sixteen is one wire: each hears the last one's broadcast.
    with net.capture("n1") as capture:
        last.succeed("ping -c 1 -W 1 -b 10.0.0.255 || true")
    assert any(packet.dst == "ff:ff:ff:ff:ff:ff" for packet in capture.packets())
