# SPDX-License-Identifier: GPL-2.0-only
"""Take the logs of the crash types that a run of test_lkdtm.py has left as golden cases.

    python tests/e2e/lab/gather_klog.py TMP tests/data/klog/6.12-debug

TMP is where pytest kept what the tests had (its --basetemp, or the latest below
the system's directory for temporary files); what the parser makes of each log is
written beside them, to be read by a person before it is committed.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from lab.vm.qemu import plain
from lab.watch.follow import MARK
from lab.watch.parser import parse
from lab.watch.policy import load_policy

#: The first line of the module, with which each log begins.
BEGIN = "lkdtm: No crash points registered"

HEAD = """\
# SPDX-License-Identifier: GPL-2.0-only
# What the parser must make of each log in this directory, see gather_klog.py.
"""


def found(place: Path) -> Iterator[tuple[str, Path]]:
    """Each type and the console of its victim."""
    for log in place.glob("**/*test_provoke*/victim/console.log"):
        kind = re.search(r"\[(\w+)\]", log.parent.parent.name)
        if kind:
            yield kind[1], log


def cut(console: str) -> str:
    """What the kernel said from when the module was loaded."""
    # UBSAN names files by where they were built.
    lines = [re.sub(r"/\S*/tree/(?=\w+/)", "", line) for line in console.splitlines()]
    first = next(number for number, line in enumerate(lines) if BEGIN in line)
    return "\n".join(line for line in lines[first:] if MARK not in line) + "\n"


def seen(log: str) -> list[str]:
    """Kind and innermost function of each report, as expected.yaml has them."""
    events = parse(log.splitlines(), policy=load_policy())
    return [
        f"{event.kind} {event.stack[0].split('+')[0] if event.stack else '-'}"
        for event in events
        if event.severity != "note"
    ]


def main(place: Path, target: Path) -> None:
    """Gather all, and say how many there were."""
    expected: dict[str, list[str]] = {}
    target.mkdir(exist_ok=True)
    for kind, console in sorted(found(place)):
        log = cut(plain(console.read_bytes()))
        (target / f"{kind}.log").write_text(log)
        expected[kind] = seen(log)
    text = yaml.safe_dump(expected, default_flow_style=None, width=100)
    (target / "expected.yaml").write_text(HEAD + text)
    print(f"{len(expected)} logs in {target}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
