# SPDX-License-Identifier: GPL-2.0-only
"""The parser against logs of real kernels that were crashed on purpose."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from lab.watch.parser import parse
from lab.watch.policy import load_policy

KLOG = Path(__file__).parent.parent / "data" / "klog"
LKDTM = Path(__file__).parent.parent / "e2e" / "lab" / "lkdtm.yaml"

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


@pytest.mark.parametrize(
    ("kernel", "flavour"), [(kernel, flavour) for kernel, flavour in KERNELS if flavour != "plain"]
)
def test_logs_are_what_the_table_says(kernel: str, flavour: str) -> None:
    """What crashes are to look like, and what the parser makes of them, are one thing."""
    found = yaml.safe_load((KLOG / f"{kernel}-{flavour}" / "expected.yaml").read_text())
    table = yaml.safe_load(LKDTM.read_text())
    for group in table["types"].values():
        for name, entry in group.items():
            if name in table["absent"][kernel]:
                continue
            own = isinstance(entry, dict) and "silent" not in entry
            names = (f"{kernel}-{flavour}", kernel, flavour, "default") if own else ()
            look = next((entry[name] for name in names if name in entry), entry)
            kinds = [] if isinstance(look, dict) else look.split("|")
            first = [kind.split()[0] for kind in found[name][:1]]
            assert set(first) <= set(kinds), f"{name}: {first}, the table says {kinds}"
            quiet = not kinds or {"hang", "endless"} & set(kinds)
            assert first or quiet, f"{name} is silent"
