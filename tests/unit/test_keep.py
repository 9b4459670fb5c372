# SPDX-License-Identifier: GPL-2.0-only
"""Kept machines: what is no machine's name touches nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lab.errors import UserError
from lab.store import Store
from lab.vm.keep import Keep


@pytest.mark.parametrize("name", ["a", "../a", "/proc/a", "a/b", "", "A"])
def test_what_is_not_up_leaves_no_file(tmp_path: Path, name: str) -> None:
    keep = Keep(Store(tmp_path / "store"))
    before = sorted(tmp_path.rglob("*"))
    for word in (keep.down, keep.get):
        with pytest.raises(UserError, match=f"no machine `{name}` is up"):
            word(name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_record_removes_no_directory_but_its_own(tmp_path: Path) -> None:
    keep = Keep(Store(tmp_path / "store"))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    machine = keep.root / "a"
    machine.mkdir(parents=True)
    row = {"name": "a", "label": "", "pid": 2**31 - 1, "started": 0, "since": 0, "patience": 1}
    row |= {"directory": str(machine), "sockets": str(foreign), "ssh_port": 0, "memory": 64}
    (machine / "machine.json").write_text(json.dumps(row))
    keep.down("a")
    assert not machine.exists()
    assert foreign.exists()
