# SPDX-License-Identifier: GPL-2.0-only
"""The parser against logs of real kernels that were crashed on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab.watch.parser import parse
from lab.watch.policy import load_policy

KLOG = Path(__file__).parent.parent / "data" / "klog"
CASES = [
    pytest.param(log, kinds, id=f"{table.parent.name}-{log.stem}")
    for table in sorted(KLOG.glob("*/expected.yaml"))
    for log, kinds in (
        (table.parent / f"{name}.log", kinds)
        for name, kinds in yaml.safe_load(table.read_text()).items()
    )
]


@pytest.mark.parametrize(("log", "kinds"), CASES)
def test_log_of_a_real_kernel(log: Path, kinds: list[str]) -> None:
    events = parse(log.read_text().splitlines(), policy=load_policy())
    found = [
        f"{event.kind} {event.stack[0].split('+')[0] if event.stack else '-'}"
        for event in events
        if event.severity != "note"
    ]
    assert found == kinds


def test_every_log_has_an_expectation() -> None:
    for directory in KLOG.iterdir():
        table = yaml.safe_load((directory / "expected.yaml").read_text())
        assert set(table) == {log.stem for log in directory.glob("*.log")}
