# SPDX-License-Identifier: GPL-2.0-only
"""Plans for the Vagrantfile: names, ports, wires, what is refused."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from lab.errors import HostError, UserError
from lab.image.box import Box
from lab.net import topology
from lab.provider import vagrant_plan
from lab.provider.vagrant_plan import Plan, Planner
from lab.vm.spec import MachineSpec


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    kernel = tmp_path / "kernel"
    kernel.write_bytes(b"kernel")
    return MachineSpec(name="", kernel=kernel, root=tmp_path, cmdline=("slub_debug=FZ",))


@pytest.fixture
def planner(spec: MachineSpec, tmp_path: Path) -> Planner:
    box = Box(name="box", version="1.0.0.7", file=tmp_path / "box")
    return Planner(tmp_path / "state", box=box, spec=spec)


def plan(planner: Planner, name: str = "pair") -> Plan:
    made = planner.topology(topology.read(name), sources=planner.directory)
    made.save(planner.directory)
    return made


def test_both_ends_of_a_wire_fit(planner: Planner) -> None:
    left, right = plan(planner).nodes
    (_, here), (_, there) = left.cards, right.cards
    assert (here.local, here.remote) == (there.remote, there.local)
    assert here.local != here.remote


def test_no_port_and_no_address_is_given_twice(planner: Planner) -> None:
    nodes = plan(planner, "router").nodes
    ports = [node.ssh_port for node in nodes]
    ports += [card.local for node in nodes for card in node.cards]
    assert len(set(ports)) == len(ports)
    macs = [card.mac for node in nodes for card in node.cards]
    assert len(set(macs)) == len(macs)


def test_vagrants_names_count_and_guests_have_the_topologys(planner: Planner) -> None:
    nodes = plan(planner).nodes
    assert [(node.name, node.guest) for node in nodes] == [("node1", "left"), ("node2", "right")]
    assert "systemd.hostname=left" in nodes[0].cmdline
    assert "slub_debug=FZ" in nodes[0].cmdline.split()


def test_sshds_card_is_out_of_the_way(planner: Planner) -> None:
    cards = [word for word in plan(planner).nodes[0].cmdline.split() if ",ssh," in word]
    assert [word.split(",")[3] for word in cards] == ["lab"]


def test_the_plan_is_read_as_it_was_written(planner: Planner) -> None:
    made = plan(planner)
    assert vagrant_plan.load(planner.directory) == made
    assert json.loads((planner.directory / "plan.json").read_text())["box"] == "box"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nodes": [{}]}', '{"nodes": 3}'])
def test_a_torn_plan_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "plan.json").write_text(text)
    assert vagrant_plan.load(tmp_path) is None


def test_ports_stay_when_it_is_planned_again(planner: Planner) -> None:
    first = plan(planner)
    busy = first.nodes[0].ssh_port
    with socket.socket() as machine:
        machine.bind(("127.0.0.1", busy))
        machine.listen()
        assert plan(planner).nodes[0].ssh_port == busy


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_block_with_a_port_in_use_is_passed_over(kind: int) -> None:
    first = vagrant_plan.free_block(11)
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", first + 5))
        if kind == socket.SOCK_STREAM:
            other.listen()
        assert vagrant_plan.taken(range(first, first + 10)) == first + 5
        assert vagrant_plan.free_block(11) != first


def test_no_free_ports_are_the_hosts_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vagrant_plan, "taken", lambda ports: ports[0])
    with pytest.raises(HostError, match="free ports"):
        vagrant_plan.free_block(1)


def test_two_directories_do_not_meet(spec: MachineSpec, tmp_path: Path) -> None:
    box = Box(name="box", version="1", file=tmp_path)
    one, two = (Planner(tmp_path / name, box=box, spec=spec) for name in "ab")
    assert one.prefix != two.prefix


@pytest.mark.parametrize(
    ("links", "what"),
    [
        ("lan: {ends: {a: [], b: [], c: []}}", "a LAN of 3"),
        ("w: {ends: {a: [], b: []}, bridge: true}", "impaired"),
    ],
)
def test_more_than_wires_is_refused_at_its_line(
    planner: Planner, tmp_path: Path, links: str, what: str
) -> None:
    file = tmp_path / "t.yaml"
    file.write_text(f"nodes: {{a: {{}}, b: {{}}, c: {{}}}}\nlinks:\n  {links}\n")
    with pytest.raises(UserError, match=what) as caught:
        planner.topology(topology.read(file), sources=tmp_path)
    assert (caught.value.file, caught.value.line) == (file, 3)


def test_machines_of_another_topology_are_not_orphaned(planner: Planner, tmp_path: Path) -> None:
    old = plan(planner, "router")
    new = plan(planner)
    vagrant_plan.refuse_orphans(new, old, tmp_path)
    (tmp_path / "node3/libvirt").mkdir(parents=True)
    (tmp_path / "node3/libvirt/id").write_text("id")
    with pytest.raises(UserError, match="node3"):
        vagrant_plan.refuse_orphans(new, old, tmp_path)


def test_what_machines_boot_is_copied_once(planner: Planner, spec: MachineSpec) -> None:
    plan(planner)
    copy = planner.directory / "bzImage"
    inode = copy.stat().st_ino
    plan(planner)
    assert copy.stat().st_ino == inode
    spec.kernel.write_bytes(b"another")
    plan(planner)
    assert copy.read_bytes() == b"another"
