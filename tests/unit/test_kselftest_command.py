# SPDX-License-Identifier: GPL-2.0-only
"""How a selftest is run: its time limit, where its script knows no option for one."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.kernel.kselftest import Selftests


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("-o | --override-timeout", "./run_kselftest.sh -t net/mptcp:join.sh -o 90"),
        (
            "-t | --test",
            "echo timeout=90 >net/mptcp/settings && ./run_kselftest.sh -t net/mptcp:join.sh",
        ),
    ],
)
def test_the_limit_is_told(tmp_path: Path, script: str, command: str) -> None:
    (tmp_path / "run_kselftest.sh").write_text(f"#!/bin/sh\n# {script}\n")
    found = Selftests(key="k", path=tmp_path, programs=())
    assert found.command("net/mptcp:join.sh", 90.2) == command
