# SPDX-License-Identifier: GPL-2.0-only
"""A test process does not outlive the lab that started it, however that dies."""

from __future__ import annotations

import os
import threading

#: Seconds between two looks.
_TICK = 0.25
#: Names the process that started us, should it die before our first look.
PARENT = "LAB_PARENT_PID"


def follow_parent() -> None:
    """End this process at once when its parent is gone.

    Its machines then are its reaper's business. pytest, a worker of xdist and
    the lab itself may all be killed without a chance to say so, which is why
    nothing but the parent's number is looked at.
    """
    parent = os.getppid()
    expected = os.environ.pop(PARENT, "")
    if expected.isdigit() and int(expected) != parent:
        os._exit(4)
    threading.Thread(target=_follow, args=(parent,), name="parent-watch", daemon=True).start()


def _follow(parent: int) -> None:
    stop = threading.Event()
    while os.getppid() == parent:
        stop.wait(_TICK)
    os._exit(4)
