# SPDX-License-Identifier: GPL-2.0-only
"""A test process does not outlive the lab that started it, however that dies."""

from __future__ import annotations

import os

#: Names the process that started us.
PARENT = "LAB_PARENT_PID"


def end_if_orphaned() -> None:
    """End this process if the lab died before the kernel was told to end us with it.

    From then on the kernel does (setpriv --pdeathsig), for pytest and for each
    worker of xdist; their machines are their reaper's business.
    """
    expected = os.environ.pop(PARENT, "")
    if expected.isdigit() and int(expected) != os.getppid():
        os._exit(4)
