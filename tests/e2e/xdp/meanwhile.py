# SPDX-License-Identifier: GPL-2.0-only
"""What a CPU does while the other one is busy with a packet."""

from __future__ import annotations

from lab.vm.machine import Machine

#: What the packet's script prints when it begins.
CAME = "packet came"

#: Waits for that, without a program to start between it and the next command.
UNTIL_IT_CAME = f"grep -q -m 1 '{CAME}' /dev/kmsg"

#: Lua, for a packet that takes so many ns; wants the library `xdp`.
BUSY = f"""
print("{CAME}")
local till = xdp.ktime() + %d
while xdp.ktime() < till do end
"""

#: So that nothing ends it earlier.
UNLIMITED = (
    "echo 100000000000 > /sys/module/lunatik/parameters/softirq_instructions",
    "echo 100 > /sys/module/lunatik/parameters/interrupt_share",
)

#: All of it on one CPU, but for the packet: a process or a work that came to the
#: other one would wait for the packet's end.
SCRIPT = """taskset -pc 0 $$ >/dev/null
echo 1 >/sys/devices/virtual/workqueue/cpumask
taskset -c 1 {packet} >/dev/null 2>&1 &
{until}
read before _ </proc/uptime
{command}
read after _ </proc/uptime
wait
echo $before $after
"""

RESOLUTION = 10_000_000
"""ns; times are rounded down to it."""


def meanwhile(machine: Machine, *, packet: str, command: str) -> tuple[int, int]:
    """Run a command on CPU 0 while CPU 1 has a packet that another command sends.

    Returns:
        The monotonic clock before and after, in ns.
    """
    script = SCRIPT.format(packet=packet, until=UNTIL_IT_CAME, command=command)
    before, after = machine.succeed(script, timeout=60).split()[-2:]
    return _ns(before), _ns(after)


def _ns(uptime: str) -> int:
    seconds, hundredths = uptime.split(".")
    return (int(seconds) * 100 + int(hundredths)) * RESOLUTION
