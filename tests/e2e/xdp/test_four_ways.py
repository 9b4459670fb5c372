# SPDX-License-Identifier: GPL-2.0-only
"""One filter by iptables, by eBPF, by eBPF that calls Lua, by Lua alone: the same packets pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from filters import CALLED, FILTERS, STANDALONE, knowing, tell_sources
from scapy.utils import RawPcapReader
from servers import serve
from traffic import BAD, Traffic, asked
from twins import HERE, attach, carry, detach, load, packed, run

from lab.net.network import Network
from lab.testing.bpf import Compiler
from lab.vm.machine import Machine

pytestmark = [pytest.mark.usefixtures("hooks"), pytest.mark.limit(180)]

PER_SOURCE, PER_SERVICE = 20, 10
"""As in filters.bpf.c."""

# What SNI looks like for "blocked.example": type, size, size of the list, type, size, name.
_SNI = "|00000014001200000f|blocked.example"

RULES = {
    "rate_limit": [
        "-m hashlimit --hashlimit-name rate --hashlimit-mode srcip"
        f" --hashlimit-upto 1/hour --hashlimit-burst {PER_SOURCE} -j ACCEPT",
        "-j DROP",
    ],
    "syn_flood": [
        "-p tcp --syn -m hashlimit --hashlimit-name syn --hashlimit-mode dstip,dstport"
        f" --hashlimit-upto 1/hour --hashlimit-burst {PER_SERVICE} -j ACCEPT",
        "-p tcp --syn -j DROP",
    ],
    "sni_block": [f"-p tcp --dport 443 -m string --algo bm --hex-string '{_SNI}' -j DROP"],
}


@dataclass(frozen=True, kw_only=True)
class Way:
    """Where packets come in, and how they are sent there.

    Attributes:
        carry: sends them all; gives what has passed.
    """

    machine: Machine
    bpf: Compiler
    carry: Callable[[], list[bytes]]
    device: str = "r0"
    bad: tuple[str, ...] = BAD


class Filtered:
    """One of the filters on the way, by one means at a time, and what passes it."""

    def __init__(self, way: Way, name: str) -> None:
        self.way, self.machine, self.name = way, way.machine, name

    def by_iptables(self) -> list[bytes]:
        rules = RULES.get(self.name) or [f"-s {source} -j DROP" for source in self.way.bad]
        append = f"iptables-legacy -t raw -A PREROUTING -i {self.way.device}"
        self.machine.succeed(*(f"{append} {rule}" for rule in rules))
        passed = self.way.carry()
        self.machine.succeed("iptables-legacy -t raw -F")
        return passed

    def by_ebpf(self, mode: str) -> list[bytes]:
        where = self.loaded("filters", mode)
        tell_sources(self.machine, where, self.way.bad)
        return self.carried_by(where, self.name, mode)

    def by_both(self, mode: str) -> list[bytes]:
        self.machine.module("lunatik_xdp")
        run(self.machine, knowing(self.way.bad) + CALLED.format(filter=self.name), name="verdict")
        passed = self.carried_by(self.loaded("call_lua", mode), "call_lua", mode)
        self.machine.succeed("lunatik stop verdict")
        return passed

    def by_lua(self, mode: str) -> list[bytes]:
        own = STANDALONE.format(filter=self.name, device=self.way.device, mode=mode)
        run(self.machine, knowing(self.way.bad) + own)
        passed = self.way.carry()
        self.machine.succeed("lunatik stop filter")
        return passed

    def loaded(self, file: str, mode: str) -> str:
        program = self.way.bpf(HERE / f"{file}.bpf.c")
        return load(self.machine, program, f"{file}-{self.name}-{mode}")

    def carried_by(self, where: str, program: str, mode: str) -> list[bytes]:
        attach(self.machine, where, program, mode=mode, device=self.way.device)
        passed = self.way.carry()
        detach(self.machine, mode=mode, device=self.way.device)
        return passed


def expected(name: str, frames: list[bytes], bad: tuple[str, ...]) -> int:
    """How many pass, found out here once more."""
    spent: Counter[bytes] = Counter()
    passed = 0
    for frame in frames:
        size = (frame[14] & 15) * 4
        tcp = frame[14 + size :] if frame[23] == 6 else b""
        if name == "drop_source":
            drop = frame[26:30] in {bytes(map(int, source.split("."))) for source in bad}
        elif name == "rate_limit":
            spent[frame[26:30]] += 1
            drop = spent[frame[26:30]] > PER_SOURCE
        elif name == "syn_flood":
            syn = bool(tcp) and tcp[13] & 0x17 == 2
            spent[tcp[2:4]] += syn
            drop = syn and spent[tcp[2:4]] > PER_SERVICE
        else:
            drop = tcp[2:4] == b"\x01\xbb" and b"\x00\x0fblocked.example" in tcp
        passed += not drop
    return passed


@pytest.mark.parametrize("name", FILTERS)
def test_same_packets_pass(router: Machine, bpf: Compiler, name: str) -> None:
    count = asked("LAB_PACKETS", 500)
    frames = Traffic(seed=9).frames(count)
    router.copy_to(packed(frames), "/tmp/frames")
    way = Way(machine=router, bpf=bpf, carry=lambda: carry(router))
    filtered = Filtered(way, name)
    everything = way.carry()
    assert len(everything) == count
    # In order only as far as one queue goes: compare what passed, not when.
    rules = sorted(filtered.by_iptables())
    assert expected(name, frames, way.bad) == len(rules) < count
    assert sorted(filtered.by_ebpf("native")) == rules
    assert sorted(filtered.by_both("native")) == rules
    for mode in ("native", "generic"):
        assert sorted(filtered.by_lua(mode)) == rules, mode


def talk(client: Machine, server: str, sources: tuple[str, ...]) -> None:
    """What programs of people say to them, from several addresses."""
    client.succeed(*(f"ip address add {source}/24 dev eth0" for source in sources))
    # A newer one's hello is larger than a packet.
    curl = (
        "curl -sk -m 30 -o /dev/null --tls-max 1.2 --interface {} --resolve {}:443:{} https://{}/"
    )
    for source in sources:
        client.succeed(
            f"ping -q -c 3 -i 0.1 -W 5 -I {source} {server}",
            f"ping -q -c 1 -s 3000 -W 5 -I {source} {server}",
            f"drill @{server} {source}.example",
            f"for n in 1 2 3 4 5 6; do nc -z -w 5 -s {source} {server} 81; done; true",
        )
    for source, name in zip(sources, ("blocked.example", "fine.example"), strict=False):
        client.succeed(curl.format(source, name, server, name))
    client.succeed(f"iperf3 -c {server} -B {sources[-1]} -n 100K", timeout=60)


def read(file: Path, *, beyond: str) -> list[bytes]:
    """The frames of a pcap file with IPv4 to an address."""
    to = bytes(map(int, beyond.split(".")))
    frames = (data for data, _ in RawPcapReader(str(file)))
    return [data for data in frames if data[12:14] == b"\x08\x00" and data[30:34] == to]


RECEIVED = "/sys/class/net/eth0/statistics/rx_packets"

STILL = f"n=$(cat {RECEIVED}); sleep 0.3; test $n = $(cat {RECEIVED})"

#: A server that hears and says nothing: QEMU captures what came to its card.
DEAF = """nft -f - <<END
table netdev t {
    chain i {
        type filter hook ingress device eth0 priority 0; policy drop;
    }
}
END"""


@pytest.mark.topology("router")
@pytest.mark.limit(300)
def test_same_packets_of_people_pass_between_machines(net: Network, bpf: Compiler) -> None:
    """Traffic of real programs, captured once, through the driver of a card."""
    client, router, server = net.nodes("client", "router", "server")
    address = net.address("server")
    serve(server)
    sources = ("10.0.1.66", "10.0.1.67", "10.0.1.7")
    with net.capture("client") as capture:
        talk(client, address, sources)
    frames = read(capture.file, beyond=address)
    # How many acknowledgements are among them is the clock's doing.
    assert len(frames) > 50

    card = server.succeed("cat /sys/class/net/eth0/address").strip()
    router.succeed(
        f"ip neigh replace {address} lladdr {card} dev eth1",
        # What GRO has put together would be one packet to a rule.
        "ethtool -K eth0 gro off",
        "echo 100 > /sys/module/lunatik/parameters/interrupt_share",
    )
    server.succeed(DEAF)
    client.copy_to(HERE / "wires.py", "/tmp/wires.py")
    client.copy_to(packed(frames), "/tmp/frames")
    client.succeed("ip netns attach here 1")

    def carry() -> list[bytes]:
        came = int(router.succeed(f"cat {RECEIVED}")) + len(frames)
        with net.capture("server") as capture:
            client.succeed("python3 /tmp/wires.py /tmp/frames here eth0")
            router.wait_until_succeeds(f"test $(cat {RECEIVED}) -ge {came}")
            server.wait_until_succeeds(STILL)
        return sorted(read(capture.file, beyond=address))

    way = Way(machine=router, bpf=bpf, carry=carry, device="eth0", bad=sources[:2])
    assert len(carry()) == len(frames)
    for name in FILTERS:
        filtered = Filtered(way, name)
        rules = filtered.by_iptables()
        assert expected(name, frames, way.bad) == len(rules) < len(frames), name
        for by in (filtered.by_ebpf, filtered.by_both, filtered.by_lua):
            assert by("native") == rules, (name, by.__name__)
