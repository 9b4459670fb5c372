# SPDX-License-Identifier: GPL-2.0-only
"""Topologies as data: what is read, what is refused, what becomes of it in a guest."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from lab.errors import UserError
from lab.net.network import End, Link, Network, Start, configuration, sysctl_file
from lab.net.topology import READY_MADE, Topology, read
from lab.vm.machine import Body, Channel, Completed, Machine
from lab.vm.spec import MachineSpec

GOOD = """\
nodes:
  a: {sysctls: {net.ipv4.ip_forward: "1"}, routes: {default: 10.0.0.2}, run: [true]}
  b: {}
links:
  one:
    ends: {b: [10.0.0.2/24], a: [10.0.0.1/24, "fd00::1/64"]}
  two:
    ends: {a: [10.0.1.1/24], b: [10.0.1.2/24]}
    impair: {delay: 10ms, loss: 1%}
"""


def topology(tmp_path: Path, text: str) -> Topology:
    """Read a topology from text."""
    file = tmp_path / "net.yaml"
    file.write_text(text.replace("run: [true]", 'run: ["true"]'))
    return read(file)


@pytest.mark.parametrize("name", [file.stem for file in READY_MADE.glob("*.yaml")])
def test_ready_made_are_sound(name: str) -> None:
    found = read(name)
    assert all(found.cards(node) for node in found.nodes)


def test_cards_come_in_the_order_of_the_links(tmp_path: Path) -> None:
    assert topology(tmp_path, GOOD).cards("a") == ["one", "two"]


def test_impaired_link_has_a_bridge(tmp_path: Path) -> None:
    found = topology(tmp_path, GOOD)
    assert [link.bridged for link in found.links.values()] == [False, True]
    assert all(link.bridged for link in found.bridged().links.values())


def test_a_lan_is_never_bridged() -> None:
    assert not any(link.bridged for link in read("lan").bridged().links.values())


def test_configuration_of_a_node(tmp_path: Path) -> None:
    assert configuration(topology(tmp_path, GOOD), "a").splitlines() == [
        "set -e",
        "/usr/lib/lab/configure <<'END'",
        "write /proc/sys/net/ipv4/ip_forward 1",
        "up eth0",
        "address eth0 10.0.0.1/24",
        "address eth0 fd00::1/64",
        "up eth1",
        "address eth1 10.0.1.1/24",
        "route 0.0.0.0/0 10.0.0.2",
        "END",
        "true",
    ]


@pytest.mark.parametrize(
    ("key", "file"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
    ],
)
def test_where_a_sysctl_is(key: str, file: str) -> None:
    assert sysctl_file(key) == f"/proc/sys/{file}"


class Refusing(Channel):
    """A guest that takes two lines, and not the third."""

    overdue = None

    def run(self, command: str, *, timeout: float, stdin: bytes | None) -> Completed:
        assert (command, timeout) == ("/usr/lib/lab/configure", 30)
        assert stdin is not None and len(stdin.splitlines()) == 4
        return Completed(1, "", "3 Nexthop has invalid gateway\n")


def test_what_a_kernel_refuses_is_told_with_the_line(tmp_path: Path) -> None:
    plan = topology(
        tmp_path,
        """\
nodes:
  a:
    sysctls: {net.ipv4.ip_forward: "1", net.ipv4.ip_default_ttl: "9"}
    routes:
      10.1.0.0/16: 10.0.0.9
      default: 10.0.0.1
""",
    )

    def start(spec: MachineSpec) -> Machine:
        return Machine(spec=spec, directory=tmp_path, channel=Refusing(), body=cast("Body", None))

    def spec(name: str) -> MachineSpec:
        return MachineSpec(name=name, kernel=tmp_path, root=tmp_path)

    with pytest.raises(UserError) as caught:
        Network(plan, specs=spec, start=start, directory=tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/net.yaml:5: the kernel of `a` refused `route 10.1.0.0/16 10.0.0.9`: "
        "Nexthop has invalid gateway"
    )


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("10.0.0.2/24]", "10.0.0.2]", 6, "prefix length"),
        ("10.0.0.2/24]", "10.0.0.256/24]", 6, "10.0.0.256"),
        ("default: 10.0.0.2", "default: nowhere", 2, "nowhere"),
        ("default: 10.0.0.2", "10.1.0.0/16: fd00::2", 2, "one of the same protocol"),
        ('"1"', '"1\\n2"', 2, "net.ipv4.ip_forward"),
        ("net.ipv4.ip_forward:", "net ipv4:", 2, "net ipv4"),
        ("ends: {b:", "ends: {bb:", 5, "did you mean `b`"),
        ("loss: 1%", "loss: 101%", 9, "loss"),
        ("loss: 1%", "lost: 1%", 9, "did you mean `loss`"),
        ("delay: 10ms, loss: 1%", "reorder: 1%", 9, "wants a delay"),
        ("  b: {}", "  b: {}\n  b: {}", 4, "b"),
        ("ends: {b: [10.0.0.2/24], a:", "ends: {a:", 5, "has 1 end"),
    ],
)
def test_refused_with_the_line(tmp_path: Path, old: str, new: str, line: int, says: str) -> None:
    assert old in GOOD
    with pytest.raises(UserError) as caught:
        topology(tmp_path, GOOD.replace(old, new, 1))
    assert says in str(caught.value)
    assert caught.value.line == line


def test_a_machine_has_so_many_cards_at_most(tmp_path: Path) -> None:
    links = "".join(
        f"  l{n}: {{ends: {{a: [10.0.{n}.1/24], b: [10.0.{n}.2/24]}}}}\n" for n in range(17)
    )
    text = f"nodes:\n  b: {{}}\n  a: {{}}\nlinks:\n{links}"
    with pytest.raises(UserError, match="`b` has 17 links") as caught:
        topology(tmp_path, text)
    assert caught.value.line == 2
    topology(tmp_path, text.replace("  l16:", "  # l16:"))


@pytest.fixture
def network(tmp_path: Path) -> Network:
    """A router between two wires, and a node on no link; nothing is plugged in."""
    plan = topology(
        tmp_path,
        """\
nodes: {client: {}, router: {}, server: {}, alone: {}}
links:
  inside: {ends: {client: [10.0.0.2/24], router: [10.0.0.1/24]}}
  outside: {ends: {server: [10.0.1.2/24], router: [10.0.1.1/24]}}
""",
    )
    found = Network.__new__(Network)
    found.topology = plan
    found.links = {}
    return found


@pytest.mark.parametrize(
    ("node", "link", "says"),
    [
        ("typo", None, "there is no node `typo`"),
        ("clint", None, "did you mean `client`"),
        ("router", "insid", "did you mean `inside`"),
        ("client", "outside", "`client` is on no link `outside`; did you mean `inside`"),
        ("alone", None, "`alone` is on no link"),
    ],
)
def test_what_is_not_there_is_told(
    network: Network, node: str, link: str | None, says: str
) -> None:
    for asked in (network.address, network.capture):
        with pytest.raises(UserError) as caught:
            asked(node, link=link)
        assert says in str(caught.value)


def test_addresses(network: Network) -> None:
    assert network.address("router") == "10.0.0.1"
    assert network.address("router", link="outside") == "10.0.1.1"
    with pytest.raises(UserError, match="no IPv6 address"):
        network.address("router", version=6)


@pytest.mark.parametrize(
    ("ends", "right"), [(2, "bridge: true"), (3, "a wire of its own")], ids=["wire", "lan"]
)
def test_what_cannot_be_impaired(ends: int, right: str) -> None:
    nodes = {name: cast("End", None) for name in "abc"[:ends]}
    with pytest.raises(UserError, match="cannot be impaired") as caught:
        Link(name="l", ends=nodes, bridge=None).impair(loss="1%")
    assert right in str(caught.value)


def test_refused_specs_leave_no_switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[object] = []

    class Fake:
        path = tmp_path

        def __init__(self, *, ports: int) -> None:
            assert ports > 1
            runs.append(self)

        def stop(self) -> None:
            runs.remove(self)

    def refuse(name: str) -> MachineSpec:
        assert len(runs) == 1
        raise UserError(f"no kernel for {name}")

    monkeypatch.setattr("lab.net.network.Switch", Fake)
    with pytest.raises(UserError, match="no kernel"):
        Network(read("lan"), specs=refuse, start=cast("Start", None), directory=tmp_path)
    assert runs == []


def test_unknown_ready_made_names_those_there_are() -> None:
    with pytest.raises(UserError, match="did you mean `router`"):
        read("ruoter")
