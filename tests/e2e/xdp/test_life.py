# SPDX-License-Identifier: GPL-2.0-only
"""Scripts come and go, break and are killed while packets come in as fast as they can."""

from __future__ import annotations

import re

import pytest
from counters import counters
from scripts import AGAIN, TELLING
from twins import HERE, run

from lab.vm.machine import Machine

FILTER = """
local xdp = require("xdp")
local action = require("linux.xdp")
local seen = {{}}
xdp.attach(function(ctx)
    local packet = ctx:packet()
    if #packet < 54 or packet:getuint8(23) ~= 6 then return action.PASS end
    local source = packet:getstring(26, 4)
    seen[source] = (seen[source] or 0) + 1
    return seen[source] > 10 and action.DROP or action.PASS
end, {{dev = "r0", mode = "{mode}", fallback = "{fallback}"}})
"""

#: On the last CPU, and so is all that its packets meet.
FLOOD = (
    "ip netns exec client sh -c 'nice -n 19 taskset -c $(($(nproc) - 1))"
    " python3 /tmp/flood.py {device} 600 > /tmp/sent 2>&1 &'"
)

RECEIVED = "/sys/class/net/r0/statistics/rx_packets"
FORWARDED = "/sys/class/net/r1/statistics/tx_packets"

pytestmark = [
    pytest.mark.usefixtures("hooks"),
    pytest.mark.machine(cpus=1),
    pytest.mark.limit(240),
]

modes = pytest.mark.parametrize("mode", ["native", "generic"])


#: Under TCG with a thread for each CPU the jump to a program is at times patched too late.
TWO = pytest.param(2, marks=pytest.mark.machine(cpus=2, single_thread=True))


@pytest.fixture(params=[1, TWO])
def flooded(router: Machine, request: pytest.FixtureRequest) -> Machine:
    """The router under a flood that does not end; of two CPUs one is left for the rest."""
    router.copy_to(HERE / "flood.py", "/tmp/flood.py")
    before = softirqs(router)
    router.succeed(FLOOD.format(device="c0"))
    # It makes its frames first, which takes long under sanitizers.
    router.wait_until_succeeds(f"test $(cat {RECEIVED}) -gt 100")
    counts = [now - then for now, then in zip(softirqs(router), before, strict=True)]
    assert len(counts) == request.param
    assert counts[-1] > sum(counts) * 3 / 4, "the flood is on another CPU"
    return router


def softirqs(machine: Machine) -> list[int]:
    """How often each CPU has received."""
    return [int(word) for word in machine.succeed("grep NET_RX: /proc/softirqs").split()[1:]]


def received(machine: Machine) -> int:
    return int(machine.succeed(f"cat {RECEIVED}"))


def forwarded(machine: Machine) -> int:
    return int(machine.succeed(f"cat {FORWARDED}"))


@modes
@pytest.mark.amount(1_000, in_ci=100)
def test_attached_and_detached_again_and_again(flooded: Machine, mode: str, amount: int) -> None:
    flooded.copy_to(
        FILTER.format(mode=mode, fallback="open").encode(), "/lib/modules/lua/filter.lua"
    )
    # Each is waited for by both CPUs, which take turns.
    rounds = amount // flooded.spec.cpus
    before = received(flooded)
    flooded.copy_to(AGAIN.format(rounds=rounds).encode(), "/lib/modules/lua/again.lua")
    flooded.succeed("lunatik run again", "lunatik stop again", timeout=200)
    assert received(flooded) > before + 10 * rounds, "it was no flood"
    assert "xdp" not in flooded.succeed("ip link show r0")


@modes
def test_replaced_and_killed_under_a_flood(flooded: Machine, mode: str) -> None:
    for number, fallback in enumerate(("open", "closed"), start=1):
        script = FILTER.format(mode=mode, fallback=fallback)
        run(flooded, script)
        flooded.succeed("sleep 0.3", "lunatik stop filter")
        # Its successor never comes back from the first SYN.
        run(flooded, script.replace("return seen[source] > 10 and", "while true do end local _ ="))
        flooded.wait_until_succeeds("lunatik list | grep -i budget")
        # Dead, it passes what comes or drops it, and has said so once.
        before = forwarded(flooded)
        if fallback == "open":
            flooded.wait_until_succeeds(f"test $(cat {FORWARDED}) -gt {before + 100}")
        else:
            arrived = received(flooded)
            flooded.wait_until_succeeds(f"test $(cat {RECEIVED}) -gt {arrived + 100}")
            # Neighbours and routers look for each other now and then.
            assert forwarded(flooded) < before + 10
        assert len(re.findall(r"filter.*budget", flooded.succeed("dmesg"))) == number
        # It was killed once; what came afterwards never got as far as the script.
        assert counters(flooded, "filter")["ERRORS"] == "1"
        flooded.succeed("lunatik stop filter")


@modes
def test_device_and_namespace_go_under_a_flood(flooded: Machine, mode: str) -> None:
    run(flooded, TELLING.format(device="r0", mode=mode))
    flooded.wait_until_succeeds("dmesg | grep 'met 100'")
    flooded.succeed("ip link del r0", "lunatik stop filter")
    # Once more, with the device in a namespace that goes.
    flooded.succeed(
        "ip netns add router",
        "ip link add r0 netns router type veth peer name c1 netns client",
        "ip -n router link set r0 up; ip -n client link set c1 up",
        FLOOD.format(device="c1"),
    )
    flooded.succeed("dmesg -C", "ip netns exec router lunatik run filter softirq")
    flooded.wait_until_succeeds("dmesg | grep 'met 100'")
    flooded.succeed("ip netns del router")
    flooded.wait_until_succeeds("! ip netns exec client ip link show c1")
    flooded.succeed("lunatik stop filter")


#: Takes long for each packet, and passes it.
SLOW = """
local xdp, action = require("xdp"), require("linux.xdp")
xdp.attach(function(ctx, packet)
    for at = 0, 2000 do local _ = packet:getuint8(at % 14) end
    return action.{verdict}
end, {{dev = "r0", mode = "{mode}", fallback = "{fallback}"}})
"""


@modes
@pytest.mark.parametrize(
    ("fallback", "verdict", "passes"), [("open", "DROP", True), ("closed", "PASS", False)]
)
def test_flood_uses_up_the_share(
    flooded: Machine, mode: str, fallback: str, verdict: str, passes: bool
) -> None:
    """Nothing of what the script says is left then, but what it declared."""
    flooded.succeed("echo 1 > /sys/module/lunatik/parameters/interrupt_share")
    run(flooded, SLOW.format(mode=mode, fallback=fallback, verdict=verdict))
    flooded.wait_until_succeeds("dmesg | grep 'filter.*used up'")
    before, entries, arrived = forwarded(flooded), figures(flooded), received(flooded)
    flooded.wait_until_succeeds(f"test $(cat {RECEIVED}) -gt {arrived + 1000}")
    now, (entered, throttled) = forwarded(flooded), figures(flooded)
    throttled -= entries[1]
    assert throttled > 500 and throttled > 10 * (entered - entries[0])
    # The few that it was asked of, and neighbours that look for each other.
    assert (now - before > throttled / 2) if passes else (now - before < throttled / 5)
    assert counters(flooded, "filter")["ERRORS"] == "0"
    flooded.succeed("lunatik stop filter")


def figures(machine: Machine) -> tuple[int, int]:
    """How often the filter was called, and how often refused."""
    found = counters(machine, "filter")
    return int(found["ENTRIES"]), int(found["THROTTLED"])


FAILING = {
    "error": 'error("rotten")',
    "rubbish": "return 'no action'",
    "memory": "return #('x'):rep(1 << 20)",
    "nowhere": "return action.REDIRECT",
}

LOGGED = {
    "error": "rotten",
    "rubbish": "returned no action",
    "memory": "not enough memory",
    "nowhere": "REDIRECT without redirect()",
}


@pytest.mark.parametrize("failure", FAILING)
def test_failures_are_counted_and_packets_fall_back(router: Machine, failure: str) -> None:
    # So little that asking for more of it costs less than the budget.
    router.succeed("echo 1048576 > /sys/module/lunatik/parameters/memory")
    run(
        router,
        f"""
        local xdp = require("xdp")
        local action = require("linux.xdp")
        local before
        xdp.attach(function(ctx)
            if #ctx:packet() ~= 98 then
                before = before or xdp.failures()
                return xdp.failures() - before == 7 and action.DROP or action.PASS
            end
            {FAILING[failure]}
        end, {{dev = "r0"}})
        """,
    )
    # Some neighbour discovery may have come while the script was being loaded,
    # and fallen back as well: what counts begins with a packet of another size.
    ask = "ip netns exec client ping -q -c 1 -s 100 -W 1 192.0.2.2"
    router.succeed(ask)
    reach = "ip netns exec client ping -q -c 7 -i 0.1 -W 1 192.0.2.2"
    router.succeed(reach, timeout=30)
    # As many as the pings.
    router.fail(ask)
    assert counters(router, "filter")["ERRORS"] == "7"
    assert router.succeed("dmesg").count(LOGGED[failure]) == 1
