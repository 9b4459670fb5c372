# SPDX-License-Identifier: GPL-2.0-only
"""The examples of the pages: read as the lab reads them, and run as far as no machine is needed."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest

from lab import manifest
from lab.net import network, topology
from lab.net.capture import Capture
from lab.net.impairment import Impairment
from lab.net.network import Network
from lab.net.topology import READY_MADE, Topology
from lab.testing.rig import checkout
from lab.vm.spec import MachineSpec

DOCS = checkout() / "docs"
TOPOLOGIES = "topologies.md"


def examples(page: str, language: str) -> list[str]:
    """The fenced blocks of a page that are in a language."""
    found = re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)
    assert found, f"{page} has no example in {language}"
    return found


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_MANIFEST", raising=False)


@pytest.fixture
def own(tmp_path: Path) -> Topology:
    """The one that the page shows."""
    (text,) = examples(TOPOLOGIES, "yaml")
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return topology.read(file)


def strangers(net: Topology) -> Iterator[tuple[str, str]]:
    """Nodes, each with a network that it has no way to, though it speaks that version of IP."""
    cards = [
        (node, ipaddress.ip_interface(text))
        for link in net.links.values()
        for node, addresses in link.ends.items()
        for text in addresses
    ]
    for node, entry in net.nodes.items():
        near = {card.network for name, card in cards if name == node}
        ways = near | {
            ipaddress.ip_network(prefix.replace("default", "::/0" if ":" in by else "0.0.0.0/0"))
            for prefix, by in entry.routes.items()
            if any(ipaddress.ip_address(by) in network for network in near)
        }
        for there in {card.network for _, card in cards}:
            mine = [way for way in ways if way.version == there.version]
            if mine and not any(there.subnet_of(way) for way in mine):
                yield node, str(there)


def test_nodes_of_the_own_topology_reach_each_other(own: Topology) -> None:
    assert not list(strangers(own))


@pytest.mark.parametrize("name", [file.stem for file in READY_MADE.glob("*.yaml")])
def test_nodes_of_the_ready_made_ones_reach_each_other(name: str) -> None:
    assert not list(strangers(topology.read(name)))
    assert f"`{name}`" in (DOCS / TOPOLOGIES).read_text()


def test_own_topology_asks_for_enough(own: Topology) -> None:
    lab = manifest.read()
    for node in own.nodes.values():
        assert node.kernel is None or node.kernel in lab.kernels
        flavour = lab.flavour(node.flavour or "default")
        assert node.memory is None or node.memory >= flavour.memory


def test_words_of_a_network_do_as_the_page_says(
    own: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "runtime", lambda: SimpleNamespace(directory=lambda: tmp_path))
    monkeypatch.setattr(Capture, "packets", lambda _: [])

    def start(spec: MachineSpec) -> MagicMock:
        machine = MagicMock()
        machine.configure_mock(name=spec.name)
        return machine

    net = Network(
        own,
        specs=lambda name: MachineSpec(name=name, kernel=tmp_path, root=tmp_path),
        start=start,
        directory=tmp_path,
    )
    # The mark is the lab's plugin's, which runs no unit tests.
    mark = SimpleNamespace(topology=lambda name: topology.read(name) and (lambda test: test))
    names = {"net": net, "pytest": SimpleNamespace(mark=mark)}
    for text in examples(TOPOLOGIES, "python"):
        exec(compile(text, TOPOLOGIES, "exec"), names)
    names["test_forwarding"](net)
    net["client"].succeed.assert_called_with("ping -c 1 10.0.2.2")


def test_every_fault_of_a_wire_is_in_the_table() -> None:
    rows = re.findall(r"^\| (`[^|]+) \| `([^`]+)` \|", (DOCS / TOPOLOGIES).read_text(), re.M)
    table = {name: value for names, value in rows for name in re.findall(r"`(\w+)`", names)}
    assert set(table) == set(Impairment.model_fields)
    for name, value in table.items():
        Impairment.model_validate({"delay": "1ms", name: int(value) if value.isdigit() else value})


def test_kernels_of_ones_own(tmp_path: Path) -> None:
    (text,) = examples("kernel.md", "yaml")
    file = tmp_path / "lab.local.yaml"
    file.write_text(text.replace("sha256: ...", f"sha256: {'a' * 64}"))
    assert {"6.18", "mine"} <= set(manifest.read(file).kernels)


def test_tests_of_the_page_on_tests_are_python() -> None:
    for text in examples("writing-tests.md", "python"):
        compile(text, "writing-tests.md", "exec")
