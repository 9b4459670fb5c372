# SPDX-License-Identifier: GPL-2.0-only
"""The parser against logs of real kernels that were crashed on purpose."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

from lab.testing.rig import checkout

sys.path.append(str(checkout() / "tests/e2e/lab"))

import lkdtm
from gather_klog import seen

KLOG = Path(__file__).parent.parent / "data" / "klog"

#: Logs by kernel and flavour; "plain" is a kernel without the lab's configuration.
KERNELS = [name.rpartition("-")[::2] for name in sorted(path.name for path in KLOG.iterdir())]

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
    assert seen(log.read_text()) == kinds


def test_every_log_has_an_expectation() -> None:
    for directory in KLOG.iterdir():
        table = yaml.safe_load((directory / "expected.yaml").read_text())
        assert set(table) == {log.stem for log in directory.glob("*.log")}


@pytest.mark.parametrize(
    ("kernel", "flavour"), [(kernel, flavour) for kernel, flavour in KERNELS if flavour != "plain"]
)
def test_logs_are_what_the_table_says(kernel: str, flavour: str) -> None:
    """What crashes are to look like, and what the parser makes of them, are one thing."""
    found = yaml.safe_load((KLOG / f"{kernel}-{flavour}" / "expected.yaml").read_text())
    for group in lkdtm.types_of(lkdtm.read(), kernel).values():
        for name, entry in group.items():
            kinds, _ = lkdtm.wanted(entry, kernel, flavour)
            first = [kind.split()[0] for kind in found[name][:1]]
            assert set(first) <= kinds, f"{name}: {first}, the table says {kinds}"
            quiet = not kinds or {"hang", "endless"} & kinds
            assert first or quiet, f"{name} is silent"
