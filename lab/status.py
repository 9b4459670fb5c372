# SPDX-License-Identifier: GPL-2.0-only
"""The exit status that ``run`` hands on: several steps may write it, the highest wins.

nox knows only 0 and 1, so the status travels in the file that LAB_STATUS_FILE
names.  Only what nox starts itself may write there, not what tests start; so
whoever takes the variable removes it from the environment.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

VARIABLE = "LAB_STATUS_FILE"

FROM_PYTEST = {0: 0, 1: 1, 2: 130, 3: 4, 4: 2, 5: 2}
"""pytest's own: passed, failed, interrupted, internal error, usage, nothing collected."""


def take_file() -> Path | None:
    """The status file, if we were given one; children will not be."""
    name = os.environ.pop(VARIABLE, "")
    return Path(name) if name else None


def record(file: Path | None, status: int) -> None:
    """Write a status, unless a higher one is there."""
    if file is None:
        return
    before = 0
    with suppress(OSError, ValueError):
        before = int(file.read_text())
    with suppress(OSError):  # the status still goes out as our own
        file.write_text(f"{max(before, status)}\n")


def main() -> int:
    """``python -m lab.status ARGUMENTS``: pytest, with its status made one of the lab's."""
    import pytest

    file = take_file()
    code = FROM_PYTEST.get(int(pytest.main(sys.argv[1:])), 4)
    record(file, code)
    return code


if __name__ == "__main__":
    sys.exit(main())
