# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's types that BPF programs of tests are compiled with."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.kernel.artifact import Kernel
from lab.store import Store
from lab.testing.bpf import types_of

BPFTOOL = """#!/bin/sh
echo "$@" >> {log}
case $1 in
version) echo bpftool v7.1.0;;
*) echo "/* of $4 */";;
esac
"""


def kernel(key: str) -> Kernel:
    return Kernel(name="6.12", version="6.12.1", flavour="default", key=key, path=Path("/k", key))


def test_types_are_made_once_for_each_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, program = tmp_path / "log", tmp_path / "bin/bpftool"
    program.parent.mkdir()
    program.write_text(BPFTOOL.format(log=log))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    for key in ("one", "two", "one"):
        header = types_of(kernel(key), Store(tmp_path / "store")) / "vmlinux.h"
        assert header.read_text() == f"/* of /k/{key}/vmlinux */\n"
    dumps = [line for line in log.read_text().splitlines() if line.startswith("btf")]
    assert dumps == [f"btf dump file /k/{key}/vmlinux format c" for key in ("one", "two")]
