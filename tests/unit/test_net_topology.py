# SPDX-License-Identifier: GPL-2.0-only
"""Topologies as data: what is read, what is refused, what becomes of it in a guest."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import UserError
from lab.net.network import configuration
from lab.net.topology import READY_MADE, Topology, read

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
        "sysctl -qw net.ipv4.ip_forward=1",
        "ip -batch - <<'END'",
        "link set eth0 up",
        "address add 10.0.0.1/24 dev eth0",
        "address add fd00::1/64 dev eth0 nodad",
        "link set eth1 up",
        "address add 10.0.1.1/24 dev eth1",
        "route add default via 10.0.0.2",
        "END",
        "true",
    ]


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("10.0.0.2/24]", "10.0.0.2]", 6, "prefix length"),
        ("10.0.0.2/24]", "10.0.0.256/24]", 6, "10.0.0.256"),
        ("default: 10.0.0.2", "default: nowhere", 2, "nowhere"),
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


def test_unknown_ready_made_names_those_there_are() -> None:
    with pytest.raises(UserError, match="did you mean `router`"):
        read("ruoter")
