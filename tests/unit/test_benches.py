# SPDX-License-Identifier: GPL-2.0-only
"""Benches run seldom: what they do to the sources still fits these."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from lab.manifest import ROOT
from lab.process import run

CALL = """
import sys
from pathlib import Path
from test_runtime_cost import remove_caps
remove_caps(Path(sys.argv[1]))
"""


def test_caps_can_be_taken_out(tmp_path: Path) -> None:
    copy = tmp_path / "lunatik-src"
    shutil.copytree(ROOT / "lunatik-src", copy)
    # On its own: here its marks would be unknown.
    run([sys.executable, "-c", CALL, str(copy)], cwd=ROOT / "tests/bench")
    assert "runtime->memory +=" not in (copy / "core/memory.c").read_text()
    assert "vm.slice -=" not in (copy / "lua/shim/luabudget.h").read_text()
