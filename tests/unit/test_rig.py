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
from lab.testing.cell import Cell, Peer
from lab.testing.rig import Rig


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """A cell of one kernel with a peer of another, and one that the store lacks."""
    store = Store(tmp_path / "store")

    def kernel(flavour: str) -> Artifact:
        def build(directory: Path) -> None:
            said = {"name": "6.12", "release": "6.12.1", "flavour": flavour}
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


def test_stacks_of_a_peer_are_read_with_its_symbols(rig: Rig) -> None:
    symbols = _SymbolsOfNodes(rig)
    peer = rig.cell.peers[0].kernel
    of_peer = symbols[Node(name="peer", directory="peer", kernel=peer)]
    of_cell = symbols[Node(name="own", directory="own", kernel=rig.cell.kernel)]
    assert of_peer._vmlinux == rig.modules_for(peer)[0].vmlinux != rig.kernel.vmlinux
    assert of_cell._vmlinux == rig.kernel.vmlinux
    assert symbols[None] is of_cell
