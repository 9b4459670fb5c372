# SPDX-License-Identifier: GPL-2.0-only
"""A run's machines may run different kernels: which one is told by what they boot."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lab.results.bundle import _SymbolsOfNodes
from lab.results.record import Node
from lab.store import Artifact, Store
from lab.testing import rig as module
from lab.testing.cell import Cell, Peer
from lab.testing.rig import Rig
from lab.testing.running import _kernel_facts


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A cell of one kernel with a peer of another, and one that the store lacks."""
    store = Store(tmp_path / "store")

    def kernel(flavour: str) -> Artifact:
        def build(directory: Path) -> None:
            said = {
                "name": "6.12",
                "release": "6.12.1",
                "flavour": flavour,
                "toolchain": {"cc": "gcc 12.2.0"},
            }
            (directory / "build.json").write_text(json.dumps(said))

        return store.make("kernel", {"flavour": flavour}, build)

    def image(directory: Path) -> None:
        (directory / "root.erofs").write_text("")

    peers = [
        Peer(name="6.12", flavour=flavour, kernel=key)
        for flavour, key in (("debug", kernel("debug").key), ("lost", "0" * 20))
    ]
    cell = Cell(
        run="r",
        name="6.12-default-1",
        kernel=kernel("default").key,
        image=store.make("image", {}, image).key,
        flavour="default",
        peers=tuple(peers),
        tests=("tests/e2e",),
    )
    return Rig(cell, store)


def test_a_machine_is_known_by_what_it_boots(rig: Rig) -> None:
    own = rig.spec("own")
    peer = rig.peer_spec(rig.cell.peers[0], "peer")
    assert rig.kernel_of(own).flavour == "default"
    assert rig.kernel_of(peer).flavour == "debug"
    assert rig.kernel_of(replace(own, kernel=Path("/elsewhere"))) == rig.kernel


def test_the_same_bits_go_by_the_names_of_the_cell(rig: Rig) -> None:
    """Flavours that come to one kernel are two columns of the report, whoever built it."""
    peer = Peer(name="mine", flavour="net", kernel=rig.cell.peers[0].kernel)
    other = rig.cell.model_copy(
        update={"kernel_name": "6.12-mine", "flavour": "mild", "peers": (peer,)}
    )
    facts = _kernel_facts(Rig(other, rig.store))
    assert (facts.name, facts.flavour, facts.key) == ("6.12-mine", "mild", rig.kernel.key)
    assert facts.compiler == "gcc 12.2.0"
    kernel, _ = Rig(other, rig.store).modules_for(peer.kernel)
    assert (kernel.name, kernel.flavour) == ("mine", "net")
    # A cell of before they were told apart.
    assert _kernel_facts(rig).name == "6.12"


def test_stacks_of_a_peer_are_read_with_its_symbols(rig: Rig) -> None:
    symbols = _SymbolsOfNodes(rig)
    peer = rig.cell.peers[0].kernel
    of_peer = symbols[Node(name="peer", directory="peer", kernel=peer)]
    of_cell = symbols[Node(name="own", directory="own", kernel=rig.cell.kernel)]
    assert of_peer._vmlinux == rig.modules_for(peer)[0].vmlinux != rig.kernel.vmlinux
    assert of_cell._vmlinux == rig.kernel.vmlinux
    assert symbols[None] is of_cell


def test_what_came_earlier_is_a_peer_of_what_comes_later(rig: Rig) -> None:
    old = Peer(name="6.1", flavour="default", kernel="1" * 20)
    peers = (*rig.cell.peers, old)
    later = Rig(rig.cell.model_copy(update={"peers": peers}), rig.store)
    # A version alone is meant in the cell's flavour, a flavour alone in its version.
    assert later.peer("6.1", None) == old
    assert later.peer(None, "debug") == rig.cell.peers[0]
    assert later.peer("6.1", "debug") is None
    # The cell that ran before the other stood has to do without it.
    assert rig.peer("6.1", None) is None


def test_a_base_is_judged_as_the_kernel_that_it_is(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, str]] = []
    monkeypatch.setattr(module, "objection", lambda _, **said: asked.append(said))
    for spec in (rig.spec("own"), rig.peer_spec(rig.cell.peers[0], "peer")):
        rig._objection(spec, "its log")
    assert asked == [
        {"kernel": "6.12.1", "flavour": "default"},
        {"kernel": "6.12.1", "flavour": "debug"},
    ]
