# SPDX-License-Identifier: GPL-2.0-only
"""The patches of kernel-patches: what is one patch on several lines stays one."""

from __future__ import annotations

from email import message_from_string
from pathlib import Path

import pytest

from lab.manifest import ROOT

XDPLUA = ROOT / "kernel-patches" / "xdplua"
LINES = ("6.1", "6.12", "7.3")

# Only where they apply differs, and what stands around.  Whoever changes one
# changes all; a line that has to part with the others leaves this table.
SHARED = {
    "0001-net-xdp-release-a-device-s-program-in-one-place.patch": LINES,
    "0003-rtnetlink-tell-which-Lua-hook-a-device-has.patch": ("6.12", "7.3"),
    "0004-bpf-offer-the-packet-helpers-of-XDP-to-Lua-hooks.patch": LINES,
}


def changes(patch: Path) -> list[str]:
    """The lines that it takes and adds, in order; a file may have another name."""
    _, _, diff = patch.read_text().partition("\ndiff --git ")
    lines = diff.partition("\n-- \n")[0].splitlines()
    return [
        line
        for line in lines
        if line.startswith(("+", "-")) and not line.startswith(("+++ ", "--- "))
    ]


def message(patch: Path) -> tuple[str, str]:
    mail = message_from_string(patch.read_text())
    return str(mail["Subject"]), str(mail.get_payload()).partition("\n---\n")[0]


def in_series(line: str) -> list[str]:
    text = (XDPLUA / line / "series").read_text()
    return [name for name in text.splitlines() if name and not name.startswith("#")]


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_patch_changes_the_same_everywhere(name: str) -> None:
    first, *others = (changes(XDPLUA / line / name) for line in SHARED[name])
    assert len(first) > 2
    assert all(other == first for other in others)
    assert len({message(XDPLUA / line / name) for line in SHARED[name]}) == 1


def test_every_line_has_the_same_patches() -> None:
    first = in_series(LINES[0])
    assert set(SHARED) <= set(first)
    for line in LINES[1:]:
        assert in_series(line) == first
        for name in first:
            subjects = {message(XDPLUA / where / name)[0] for where in (LINES[0], line)}
            assert len(subjects) == 1, name
