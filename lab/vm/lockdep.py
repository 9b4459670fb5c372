# SPDX-License-Identifier: GPL-2.0-only
"""Lockdep gives up at the first report, and much else makes it: does it still check?"""

from __future__ import annotations

import re

#: Where the guest tells; there only if lockdep is built in.
STATS = "/proc/lockdep_stats"

_STATE = re.compile(r"^\s*debug_locks:\s*(\d+)", re.MULTILINE)


def turned_off(stats: str) -> bool:
    """Whether the content of `STATS` says that locks are not checked any more.

    Args:
        stats: may have other lines too; without lockdep's the answer is no.
    """
    found = _STATE.search(stats)
    return found is not None and found[1] == "0"
