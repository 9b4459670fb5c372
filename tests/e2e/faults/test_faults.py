# SPDX-License-Identifier: GPL-2.0-only
"""Every allocation of a script's life fails once: a clean error, and nothing left.

injector.py does it on the guest. That the kernel said nothing is seen to by
the lab, that nothing leaked by references, and by kmemleak where it is built in.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

INJECTOR = Path(__file__).with_name("injector.py")

SCENARIOS = (
    "session",
    "process",
    "softirq",
    "hardirq",
    "packet",
    "rules",
    "attached",
    "thread",
    "mapped",
    "notified",
    "probed",
    "timed",
    "ticking",
)

SCRIPTS = {
    "victim": """
local device, rcu, data = require("device"), require("rcu"), require("data")
local fifo, completion, struct = require("fifo"), require("completion"), require("struct")
local kept = {}
device.new{name = "victim", read = function()
	kept[#kept + 1] = data.new(100)
	return ("x"):rep(3000), 0
end, write = function(text)
	kept[#kept + 1] = text
end}
return function(shared)
	shared.word = 1
	shared.data = data.new(64)
	kept.queue, kept.event = fifo.new(64), completion.new()
	rcu.map(shared, function(key) kept[#kept + 1] = key end)
	return "text", shared, ("y"):rep(100)
end
""",
    "irq": """
local rcu, data, fifo = require("rcu"), require("data"), require("fifo")
local kept = {}
return function(shared)
	shared.word, shared.data = 1, data.new(64)
	kept.queue = fifo.new(64)
	rcu.map(shared, function(key) kept[#kept + 1] = key .. "!" end)
	return "text", shared, ("y"):rep(100)
end
""",
    "hook": """
local netfilter, nf = require("netfilter"), require("linux.nf")
local kept = {}
netfilter.register{
	hook = function(skb)
		kept[#kept + 1] = ("packet %d"):format(#kept)
		kept.text = ("z"):rep(200)
		return nf.action.ACCEPT
	end,
	pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN, priority = nf.ip.pri.FILTER,
}
""",
    "matching": """
local xtable, nf = require("xtable"), require("linux.nf")
xtable.match{name = "victim", match = function() return true end}
xtable.target{name = "victim", target = function() return nf.action.ACCEPT end}
""",
    "attached": """
local xdp, action = require("xdp"), require("linux.xdp")
xdp.attach(function() return action.PASS end, {dev = "lo", mode = "generic"})
""",
    "mapped": """
local map = require("bpf").hash("/sys/fs/bpf/victim")
return function()
	local value = ("v"):rep(300)
	assert(map:update(7, value) and map:lookup(7) == value and map:delete(7))
end
""",
    "notified": """
local kept = {}
require("notifier").netdevice(function(event, name)
	kept[#kept + 1] = ("%d of %s"):format(event, name)
	kept.text = ("z"):rep(200)
end)
""",
    "probed": """
local kept = {}
local function hit(target) kept[#kept + 1] = ("%d %s"):format(#kept, target) end
require("probe").new("__x64_sys_getpgid", {pre = hit, post = hit})
""",
    "timed": """
local kept = {}
kept.timer = require("timer").new(function() kept[#kept + 1] = ("z"):rep(200) .. #kept end)
kept.timer:start(0)
""",
    "ticking": """
local kept = {}
kept.ticker = require("ticker").new(5, function(n) kept[#kept + 1] = ("z"):rep(200) .. n end)
""",
    "threaded": """
local thread, linux = require("thread"), require("linux")
return function()
	local t = {}
	while not thread.shouldstop() do
		t[#t + 1] = ("x"):rep(#t)
		linux.schedule(5)
	end
end
""",
}

#: How many in a row: one that Lua makes good by collecting garbage, one that it
#: can't, and all from there on.
TIMES = {"once": 1, "twice": 2, "for_good": 1 << 20}


@pytest.fixture
def victim(machine: Machine) -> Machine:
    """A machine with the scripts and the injector."""
    for name, text in SCRIPTS.items():
        machine.copy_to(text.encode(), f"/lib/modules/lua/{name}.lua")
    machine.copy_to(INJECTOR, "/tmp/injector.py")
    machine.succeed(
        "mountpoint -q /sys/fs/bpf || mount -t bpf bpf /sys/fs/bpf; "
        "bpftool map create /sys/fs/bpf/victim type hash key 4 value 300 entries 4 name victim"
    )
    return machine


def skip_what_is_absent(kernel: KernelInfo, scenario: str) -> None:
    """Only kernels that carry kernel-patches/xdplua take a script on a device."""
    if scenario == "attached" and not kernel.has("XDP_LUA"):
        pytest.skip("this kernel has no XDP hooks for Lua (kernel-patches/xdplua)")


def inject(machine: Machine, words: str) -> int:
    """Run the injector; how many allocations it made fail."""
    done = machine.execute(f"python3 /tmp/injector.py {words}", timeout=100)
    assert done.status == 0, done.stderr
    print(done.stdout)
    return int(done.stdout.split()[-2])


@pytest.mark.slow
@pytest.mark.limit(120)
@pytest.mark.parametrize("times", TIMES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_own_allocations(victim: Machine, kernel: KernelInfo, scenario: str, times: str) -> None:
    skip_what_is_absent(kernel, scenario)
    count = inject(victim, f"{scenario} lunatik {TIMES[times]}")
    assert count > 100


@pytest.mark.slow
@pytest.mark.limit(120)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_the_kernel_allocates_for_it(
    victim: Machine, kernel: KernelInfo, scenario: str
) -> None:
    skip_what_is_absent(kernel, scenario)
    if not kernel.has("FAILSLAB"):
        pytest.skip("the kernel has no failslab")
    victim.succeed("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug")
    assert inject(victim, f"{scenario} slab 1") > 100
