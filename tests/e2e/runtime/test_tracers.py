# SPDX-License-Identifier: GPL-2.0-only
"""A tracer that watches returns does not stumble over errors, which jump over frames."""

from __future__ import annotations

import pytest

from lab.vm.machine import Machine

TRACING = "/sys/kernel/tracing"

#: Errors from deep inside of C: the core's, a binding's, and a nested runtime's.
ERRORS = """
local data, rcu, device = require("data"), require("rcu"), require("device")
local child = require("lunatik").runtime("child", "softirq")
local failures = 0
local function fails(...) if not pcall(...) then failures = failures + 1 end end
for i = 1, 200 do
    fails(data.new, -1)
    fails(data.new(8).getint64, data.new(8), 1)
    fails(rcu.table, 1 << 62)
    fails(rcu.map, rcu.table(), 1)
    fails(device.new, {name = ""})
    fails(child.resume, child)
end
child:stop()
return failures
"""


def functions(machine: Machine, pattern: str) -> int:
    """How many functions that can be traced match."""
    return int(machine.succeed(f"grep -c '{pattern}' {TRACING}/available_filter_functions || true"))


def test_errors_under_the_function_graph_tracer(machine: Machine) -> None:
    """Whoever opens a device, reads, writes or closes it is traced, and so is all of ours."""
    machine.succeed(f"mountpoint -q {TRACING} || mount -t tracefs none {TRACING}")
    if "function_graph" not in machine.succeed(f"cat {TRACING}/available_tracers"):
        pytest.skip("the kernel has no function_graph tracer")
    machine.copy_to(b"return function() error('no') end", "/lib/modules/lua/child.lua")
    machine.succeed("modprobe -a lunatik_data lunatik_rcu lunatik_device")
    machine.succeed(
        f"cd {TRACING}; for one in vfs_open vfs_read vfs_write vfs_writev; do "
        "echo $one >> set_ftrace_filter; done; "
        # There should be none; then it is refused.
        "echo '*:mod:lunatik*' >> set_ftrace_filter; "
        "echo function_graph > current_tracer"
    )
    try:
        for _ in range(3):
            assert machine.lua(ERRORS) == "1200"
        # Read while it goes on it would have no end.
        machine.succeed(f"cd {TRACING}; echo 0 > tracing_on; grep -m 1 vfs_write trace")
    finally:
        machine.succeed(
            f"cd {TRACING}; echo nop > current_tracer; echo > set_ftrace_filter; "
            "echo 1 > tracing_on"
        )
    assert functions(machine, "vfs_write") > 0
    assert functions(machine, "\\[lunatik") == 0
