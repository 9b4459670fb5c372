# SPDX-License-Identifier: GPL-2.0-only
"""What a machine hides until it is asked: leaks, and a lockdep that has given up."""

from __future__ import annotations

from dataclasses import dataclass

from lab.vm import lockdep
from lab.vm.machine import Machine

#: kmemleak ignores objects younger than 5 seconds.
_YOUNG = 6.0

#: Status of the script below where kmemleak has turned itself off, as it does
#: when it gets no memory for its own records; its file then only looks empty.
_GAVE_UP = 9

_LEAKS = """
cd /sys/kernel/debug || exit 0
[ -e kmemleak ] || exit 0
sleep {young}
for turn in 1 2; do
	echo scan 2>/dev/null >kmemleak || exit {gave_up}
done
cat kmemleak
"""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What was found.

    Attributes:
        leaks: kmemleak's words, "" where it found nothing or is not built in.
        blind: kmemleak is built in and has given up.
        unchecked: lockdep is built in and has given up.
    """

    leaks: str = ""
    blind: bool = False
    unchecked: bool = False


def look(machine: Machine) -> Findings:
    """Look for them; takes some seconds where kmemleak is built in.

    Raises:
        CommandTimeout: the scan took too long.
        GuestSilent, MachineDied: the machine is lost.
    """
    stats = machine.execute(f"cat {lockdep.STATS} 2>/dev/null").stdout
    scan = machine.execute(_LEAKS.format(young=_YOUNG, gave_up=_GAVE_UP), timeout=60)
    return Findings(
        leaks=scan.stdout.strip(),
        blind=scan.status == _GAVE_UP,
        unchecked=lockdep.turned_off(stats),
    )
