# SPDX-License-Identifier: GPL-2.0-only
"""A Lua script on a device, without any BPF program."""

from __future__ import annotations

import pytest
from counters import counters
from forgets import FORGETS
from meanwhile import BUSY, RESOLUTION, UNLIMITED, meanwhile
from orders import TYPE, frame
from rtnl import start_under_rtnl
from twins import HERE, MOUNT_BPFFS, WIRE, XDP, packed, run

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

DROP_ICMP = """
local xdp = require("xdp")
local action = require("linux.xdp")
local ICMP <const> = 1
xdp.attach(function(ctx)
    return ctx:packet():getuint8(23) == ICMP and action.DROP or action.PASS
end, {{dev = "r0", mode = "{mode}"}})
"""

pytestmark = [pytest.mark.usefixtures("hooks")]

modes = pytest.mark.parametrize("mode", ["native", "generic"])


def script(machine: Machine, text: str, name: str = "filter") -> None:
    machine.copy_to(text.encode(), f"/lib/modules/lua/{name}.lua")


@modes
@pytest.mark.parametrize("percpu", ["", " percpu"])
def test_script_drops_what_it_says(node: Machine, mode: str, percpu: str) -> None:
    script(node, DROP_ICMP.format(mode=mode))
    node.succeed(f"lunatik run filter softirq{percpu}")
    node.fail("reach")
    # What it does not mean arrives: a datagram for a port that nobody has.
    counted = "nstat -asz UdpNoPorts | grep 'UdpNoPorts  *{} '"
    node.succeed(counted.format(0))
    node.succeed("ip netns exec client bash -c 'echo lab >/dev/udp/192.0.2.2/9'")
    node.wait_until_succeeds(counted.format(1))
    node.succeed("lunatik stop filter", "reach")


#: A device on top, whose driver knows nothing of XDP.
VLAN = """set -e
ip link add link r0 name v0 type vlan id 7
ip addr add 203.0.113.2/24 dev v0
ip link set v0 up
ip -n client link add link c0 name v0 type vlan id 7
ip -n client addr add 203.0.113.1/24 dev v0
ip -n client link set v0 up
"""


@pytest.mark.parametrize(
    ("device", "address", "shown"), [("r0", "192.0.2.2", "1"), ("v0", "203.0.113.2", "2")]
)
def test_mode_is_native_where_the_driver_has_it(
    node: Machine, device: str, address: str, shown: str
) -> None:
    node.copy_to(HERE / "show_hook.py", "/tmp/show_hook.py")
    ask = f"ip netns exec client ping -q -c 1 -W 1 {address}"
    show = f"python3 /tmp/show_hook.py {device}"
    node.succeed(VLAN)
    node.wait_until_succeeds(ask)
    script(node, DROP_ICMP.replace(', mode = "{mode}"', "").format().replace("r0", device))
    node.succeed("lunatik run filter softirq")
    assert node.succeed(show).split() == [shown, "filter"]
    node.fail(ask)
    node.succeed("lunatik stop filter", ask)
    assert node.succeed(show).split() == ["0", "-"]


def test_native_mode_is_refused_where_there_is_none(node: Machine) -> None:
    node.succeed(VLAN)
    script(node, DROP_ICMP.format(mode="native").replace("r0", "v0"))
    refused = node.execute("lunatik run filter softirq")
    assert refused.status == 1
    assert "EOPNOTSUPP" in refused.stderr
    # Why, in the kernel's own words.
    node.succeed("dmesg | grep 'v0: .*native mode'")


ODD = """
local action = require("linux.xdp")
require("xdp").attach(function(ctx, packet)
    if packet:getstring(12, 2) ~= "\\x88\\xb5" then return action.PASS end
    packet:setuint8(20, 0xaa)
    return packet:getuint8(14) % 2 == 1 and action.PASS or action.DROP
end, {{dev = "tap0"{mode}}})
"""


@pytest.mark.parametrize(
    ("asked", "given"), [("native", "xdp"), ("generic", "xdpgeneric"), (None, "xdp")]
)
def test_tap_has_both_modes(machine: Machine, asked: str | None, given: str) -> None:
    """Its frames come from a process, in that one's context."""
    script(machine, ODD.format(mode=f', mode = "{asked}"' if asked else ""))
    machine.copy_to(HERE / "tap.py", "/tmp/tap.py")
    command = "lunatik run filter softirq; ip link show tap0 > /tmp/shown"
    came = machine.succeed(f"python3 /tmp/tap.py tap0 '{command}'").split("\n")
    assert came == [f"{number} 170" for number in range(1, 10, 2)] + [""]
    assert f" {given} " in machine.succeed("cat /tmp/shown")


@modes
def test_hook_ends_with_its_device(node: Machine, mode: str) -> None:
    script(node, DROP_ICMP.format(mode=mode))
    node.succeed("lunatik run filter softirq", "ip link del r0", "ip netns del client")
    # Another device of that name has nothing of it, while its runtime goes on.
    node.succeed(WIRE)
    node.wait_until_succeeds("reach")
    script(node, DROP_ICMP.format(mode=mode), "other")
    node.succeed("lunatik list | grep filter", "lunatik run other softirq")
    node.fail("reach")
    node.succeed("lunatik stop filter", "lunatik stop other", "reach")


@pytest.mark.parametrize(("fallback", "arrives"), [("open", True), ("closed", False)])
def test_failing_script_falls_back(node: Machine, fallback: str, arrives: bool) -> None:
    script(
        node,
        'require("xdp").attach(function() error("rotten") end,'
        f' {{dev = "r0", fallback = "{fallback}"}})',
    )
    node.succeed("lunatik run filter softirq")
    (node.succeed if arrives else node.fail)("reach")
    node.wait_until_succeeds("dmesg | grep rotten")


# Nothing else that comes in may count.
ROTTEN = """
require("xdp").attach(function(ctx, packet)
    if packet:getstring(12, 2) == "{type}" then error("rotten") end
    return 2
end, {{dev = "r0", mode = "{mode}"}})
"""


# In native mode one CPU at a time takes what is in the wire, which holds 256 frames.
@pytest.mark.machine(cpus=2)
@pytest.mark.parametrize(("mode", "senders"), [("native", 1), ("generic", 2)])
def test_error_is_told_once_and_counted_each_time(node: Machine, mode: str, senders: int) -> None:
    # However long a thousand tracebacks take: packets are to meet the script.
    node.succeed("echo 100 > /sys/module/lunatik/parameters/interrupt_share")
    node.copy_to(HERE / "wires.py", "/tmp/wires.py")
    one = "taskset -c {cpu} python3 /tmp/wires.py /tmp/frames client c0 & "
    text = ROTTEN.format(mode=mode, type="".join(f"\\x{byte:02x}" for byte in TYPE))
    for attached, amount in enumerate((1000, 20), start=1):
        node.copy_to(packed([frame(0, (0, 0, 0, 0))] * (amount // senders)), "/tmp/frames")
        run(node, text)
        node.succeed("".join(one.format(cpu=cpu) for cpu in range(senders)) + "wait", timeout=60)
        assert counters(node, "filter")["ERRORS"] == str(amount)
        log = node.succeed("dmesg")
        assert log.count("rotten") == log.count("stack traceback") == attached
        node.succeed("lunatik stop filter")


def test_nothing_is_attached_where_all_the_kernel_waits(node: Machine) -> None:
    """Attaching wants RTNL, which whoever calls a notifier holds."""
    start_under_rtnl(node, DROP_ICMP.format(mode="generic"), "lunatik_xdp")
    node.succeed("dmesg | grep 'xdp.attach: not where all the kernel waits'", "reach")


def test_no_action_is_a_failure(node: Machine) -> None:
    script(
        node,
        'require("xdp").attach(function() return 5 end, {dev = "r0", fallback = "closed"})',
    )
    node.succeed("lunatik run filter softirq")
    node.fail("reach")
    node.wait_until_succeeds("dmesg | grep 'returned no action'")


def test_second_script_is_refused(node: Machine) -> None:
    script(node, DROP_ICMP.format(mode="native"))
    script(node, DROP_ICMP.format(mode="generic"), "other")
    node.succeed("lunatik run filter softirq")
    refused = node.execute("lunatik run other softirq")
    assert refused.status == 1
    assert "EEXIST" in refused.stderr or "EBUSY" in refused.stderr
    node.succeed("lunatik stop filter", "lunatik run other softirq")
    node.fail("reach")


def test_what_is_refused_is_forgotten(node: Machine) -> None:
    script(
        node,
        FORGETS
        + """
        local xdp = require("xdp")
        forgets(50, function(kept)
            local function one() return kept end
            kept[one] = true
            local ok, why = pcall(xdp.attach, one, {dev = "nosuch"})
            assert(not ok and tostring(why):find("ENODEV"), why)
        end)
        """,
    )
    node.succeed("lunatik run filter softirq")


def test_helper_refuses_what_its_twin_refuses(node: Machine) -> None:
    script(
        node,
        """
        local xdp = require("xdp")
        xdp.attach(function(ctx)
            local done, why = pcall(ctx.adjust_head, ctx, 60000)
            local inside, beyond = pcall(ctx.packet(ctx).getuint8, ctx:packet(), #ctx:packet())
            return not done and tostring(why):find("EINVAL") and not inside and 2 or 1
        end, {dev = "r0", fallback = "closed"})
        """,
    )
    node.succeed("lunatik run filter softirq", "reach")


def test_metadata_is_lent_for_its_packet(node: Machine) -> None:
    script(
        node,
        """
        local kept
        require("xdp").attach(function(ctx)
            local function refused(why, ...)
                local done, message = pcall(...)
                assert(not done and message:find(why), message)
            end
            if kept then refused("closed", kept.getuint8, kept, 0) end
            local meta = ctx:meta()
            assert(#meta == 0)
            refused("out of bounds", meta.getuint8, meta, 0)
            ctx:adjust_meta(-8)
            meta:setstring(0, "metadata")
            refused("out of bounds", meta.setuint8, meta, 8, 0)
            refused("out of bounds", meta.getuint8, meta, -1)
            -- It stays before the packet, wherever that begins.
            ctx:adjust_head(-16)
            assert(tostring(meta) == "metadata")
            ctx:adjust_head(16)
            ctx:adjust_meta(4)
            assert(tostring(ctx:meta()) == "data" and #meta == 4)
            kept = meta
            return 2
        end, {dev = "r0", fallback = "closed"})
        """,
    )
    node.succeed("lunatik run filter softirq", "reach", "reach")


# The runtime of one CPU alone; those of the others might be loaded next.
FIRST_CPU = """
local lunatik = require("lunatik")
first = lunatik.runtime("filter", "softirq", {cpu = 0})
"""


@modes
@pytest.mark.machine(cpus=2)
@pytest.mark.parametrize(("fallback", "arrives"), [("open", True), ("closed", False)])
def test_cpu_without_its_runtime_falls_back(
    node: Machine, mode: str, fallback: str, arrives: bool
) -> None:
    script(
        node,
        'require("xdp").attach(function() return 2 end,'
        f' {{dev = "r0", mode = "{mode}", fallback = "{fallback}"}})',
    )
    script(node, FIRST_CPU, "first")
    node.succeed("lunatik run first", "taskset -c 0 reach")
    (node.succeed if arrives else node.fail)("taskset -c 1 reach")


#: A packet that takes a while, and when it was done.
SLOW = """
local xdp = require("xdp")
xdp.attach(function(ctx, packet)
    if packet:getuint8(23) == 1 then
        {busy}
        print("packet left", xdp.ktime())
    end
    return 2
end, {{dev = "r0", mode = "{mode}"}})
"""


@modes
@pytest.mark.machine(cpus=2)
def test_hook_ends_after_its_last_packet(node: Machine, kernel: KernelInfo, mode: str) -> None:
    """In native mode drivers wait for it by themselves."""
    node.succeed(*UNLIMITED)
    script(node, SLOW.format(busy=BUSY % (2_000_000_000 * kernel.patience), mode=mode))
    node.succeed("lunatik run filter softirq")
    before, after = meanwhile(node, packet="reach", command=f"ip link set r0 {XDP[mode]} off")
    left = int(node.succeed("dmesg").split("packet left")[-1].split()[0])
    assert before < left, "the packet was there no more"
    assert left < after + RESOLUTION


@pytest.mark.machine(cpus=2)
def test_per_cpu_script_with_a_name_that_is_cut(node: Machine) -> None:
    name = "filter-" + "x" * 33
    script(node, DROP_ICMP.format(mode="native"), name)
    node.succeed(f"lunatik run {name} softirq percpu")
    node.fail("reach")
    # Another one of which people are shown the same.
    script(node, DROP_ICMP.format(mode="native"), name + "y")
    refused = node.execute(f"lunatik run {name}y softirq percpu")
    assert "EBUSY" in refused.stderr
    node.succeed(f"lunatik stop {name}", "reach")


# The loops themselves would be within the budget.
CHARGED = {
    "routes": "for _ = 1, 2000 do ctx:fib_lookup(asked) end",
    "sums": "for _ = 1, 8000 do xdp.csum_diff(words, '') end",
    "tails": "for _ = 1, 4000 do ctx:adjust_tail(-1400) ctx:adjust_tail(1400) end",
    "events": "for _ = 1, 4000 do ctx:event(ring, '') end",
}


@pytest.mark.parametrize("what", CHARGED)
def test_what_helpers_do_is_charged(router: Machine, what: str) -> None:
    router.succeed(
        MOUNT_BPFFS,
        "bpftool map create /sys/fs/bpf/ring type ringbuf name ring entries 4096",
    )
    script(
        router,
        f"""
        local xdp = require("xdp")
        local asked = {{src = 0xc0000201, dst = 0xc6336402}}
        local words = ("w"):rep(512)
        local ring = require("bpf").ringbuf("/sys/fs/bpf/ring")
        xdp.attach(function(ctx, packet)
            if #packet > 1400 then {CHARGED[what]} end
            return 2
        end, {{dev = "r0"}})
        """,
    )
    router.succeed("lunatik run filter softirq", "reach")
    # What is left of the packet need not be an answer's worth.
    router.execute("ip netns exec client ping -q -c 1 -s 1400 -W 1 192.0.2.2")
    router.wait_until_succeeds("lunatik list | grep 'broken: instruction budget exceeded'")
