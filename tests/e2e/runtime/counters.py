# SPDX-License-Identifier: GPL-2.0-only
"""What `lunatik top` counts, and the guest's seconds."""

from __future__ import annotations

import re

from lab.vm.machine import Machine


def counters(machine: Machine, name: str) -> dict[str, str]:
    """The row of a runtime in `lunatik top`."""
    head, *rows = machine.succeed("lunatik top").splitlines()
    fields = next(row.split() for row in rows if row.startswith(name))
    # Memory and peak are two words each.
    fields = re.sub(r"(\S+) (KiB)", r"\1\2", " ".join(fields)).split()
    return dict(zip(head.replace("CPU ms", "CPU").split(), fields, strict=True))


def uptime(machine: Machine) -> float:
    """Seconds since the guest's start."""
    return float(machine.succeed("cut -d' ' -f1 /proc/uptime"))
