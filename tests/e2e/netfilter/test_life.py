# SPDX-License-Identifier: GPL-2.0-only
"""Hooks come and go while packets pass; they fail as they were told to."""

from __future__ import annotations

import pytest
from counters import counters
from forgets import FORGETS
from rtnl import start_under_rtnl
from wiring import HOOK, LAID, PORT, ROUTED, flow, hook, run, wire

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = pytest.mark.machine(prepare=LAID)

DROP = "return port(skb) == 9999 and DROP or ACCEPT"


def test_hook_belongs_to_the_namespace_that_ran_it(machine: Machine) -> None:
    wire(machine, ROUTED)
    hook(machine, "INET", "inet.LOCAL_IN", DROP, namespace="b")
    assert flow(machine, "a", "b", "10.2.0.2", 9999, 9998) == ["lost", "arrived"]
    assert flow(machine, "a", "b", "fd02::2", 9999) == ["lost"]
    assert flow(machine, "a", "-", "10.1.0.1", 9999) == ["arrived"]
    assert flow(machine, "b", "a", "10.1.0.2", 9999) == ["arrived"]


def test_no_device_is_looked_up_where_all_the_kernel_waits(machine: Machine) -> None:
    """Looking for it wants RTNL, which whoever calls a notifier holds."""
    inner = HOOK.format(
        body="return ACCEPT", pf="NETDEV", hook="netdev.INGRESS", options="dev='lo'"
    )
    start_under_rtnl(machine, inner, "lunatik_netfilter")
    machine.succeed("dmesg | grep 'netfilter.register: not where all the kernel waits'")


#: b is a router with a bridge at its only wire, and a network behind it where nobody is.
BEYOND = """set -e
ip -n b -batch - <<END
link add br0 type bridge
link set vb master br0
address flush dev vb
address add 10.2.0.2/24 dev br0
link set br0 up
route add default via 10.2.0.1
link add beyond type dummy
address add 10.4.0.1/24 dev beyond
link set beyond up
neighbour add 10.4.0.2 lladdr 02:00:00:00:00:77 dev beyond
END
ip netns exec b sysctl -qw net.ipv4.ip_forward=1
ip route add 10.4.0.0/24 via 10.2.0.2
"""


@pytest.mark.limit(180)
def test_namespace_goes_with_hooks_in_it(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.succeed(BEYOND)
    places = {
        "pre_routing": ("INET", "inet.PRE_ROUTING", ""),
        "local_in": ("INET", "inet.LOCAL_IN", ""),
        "forward": ("INET", "inet.FORWARD", ""),
        "local_out": ("INET", "inet.LOCAL_OUT", ""),
        "post_routing": ("INET", "inet.POST_ROUTING", ""),
        "inet_ingress": ("INET", "inet.INGRESS", 'dev = "vb"'),
        "bridge": ("BRIDGE", "br.LOCAL_IN", ""),
        "arp": ("ARP", "arp.IN", ""),
        "ingress": ("NETDEV", "netdev.INGRESS", 'dev = "vb"'),
        "egress": ("NETDEV", "netdev.EGRESS", 'dev = "vb"'),
    }
    body = "met() " + DROP
    for name, (pf, place, options) in places.items():
        met = f"""
            local shared = require("lunatik")._ENV
            local function met() shared.{name} = (shared.{name} or 0) + 1 end
        """
        script = met + HOOK.format(body=body, pf=pf, hook=place, options=options)
        run(machine, script, name=f"hook_{name}", namespace="b")

    def counted() -> list[int]:
        """How many packets each has met."""
        return [int(machine.lua(f"return require('lunatik')._ENV.{name} or 0")) for name in places]

    # To what lies beyond b: only so is something forwarded.
    machine.succeed(
        "python3 /tmp/clients.py flood a 10.4.0.2 3600 >/tmp/sent 2>&1 & echo $! >/tmp/flood"
    )
    machine.wait_until_succeeds(
        "lunatik -e 'assert((require(\"lunatik\")._ENV.forward or 0) > 100)'"
    )
    # An answer from whom b has to ask for: ARP, and something for b itself. Again where one
    # of them had used up its share just then.
    met_all = " and ".join(f"shared.{name}" for name in places)
    machine.wait_until_succeeds(
        "ip -n b neighbour flush dev br0; ip netns exec b ping -c 1 -W 1 10.1.0.2; "
        f"lunatik -e 'local shared = require(\"lunatik\")._ENV assert({met_all})'"
    )
    machine.succeed("ip netns delete b")
    # Its device goes when the namespace is cleaned up, its hooks before.
    machine.wait_until_succeeds("! ip link show rb")
    machine.succeed("kill -0 $(cat /tmp/flood)", "kill $(cat /tmp/flood)")
    before = counted()
    # Its memory is free when two more have been cleaned up, and others have it then: a
    # hook that has stayed leaves one that it never was in, and the kernel warns.
    for _ in range(2):
        machine.succeed(
            "ip netns add c; ip link add rc type veth peer name vc netns c; ip netns delete c"
        )
        machine.wait_until_succeeds("! ip link show rc")
    machine.succeed("for other in 1 2 3 4 5 6 7 8; do ip netns add $other; done")
    assert flow(machine, "a", "-", "10.1.0.1", 9999) == ["arrived"]
    assert counted() == before
    for name in places:
        machine.succeed(f"lunatik stop hook_{name}")
    assert machine.succeed("lunatik list") == ""


RULES = """
local shared, xtable = require("lunatik")._ENV, require("xtable")
local function offer(kind)
    xtable[kind]{
        name = "seen",
        [kind] = function(skb, par, argument)
            shared[argument] = (shared[argument] or 0) + 1
        end,
        destroy = function(argument) print("gone is", argument) end,
    }
end
offer("match")
offer("target")
"""


@pytest.mark.limit(120)
def test_namespace_goes_with_rules_and_their_script_in_it(
    machine: Machine, kernel: KernelInfo
) -> None:
    """By both ways of iptables; the script hears that its rules are gone."""
    wire(machine, ROUTED)
    run(machine, RULES, name="rules", namespace="b")
    rules = {}
    for command in ("nft", "legacy") if kernel.has("IP_NF_FILTER") else ("nft",):
        rules[f"{command}_match"] = f"iptables-{command} -A INPUT -m lua --function seen"
        rules[f"{command}_target"] = f"iptables-{command} -A INPUT -j LUA --function seen"
    for argument, rule in rules.items():
        machine.succeed(f"ip netns exec b {rule} --argument {argument}")
    machine.succeed(
        "python3 /tmp/clients.py flood a 10.2.0.2 3600 >/tmp/sent 2>&1 & echo $! >/tmp/flood"
    )
    for argument in rules:
        machine.wait_until_succeeds(
            f"lunatik -e 'assert((require(\"lunatik\")._ENV.{argument} or 0) > 10)'"
        )
    machine.succeed("ip netns delete b")
    for argument in rules:
        machine.wait_until_succeeds(f"dmesg | grep 'gone is.*{argument}'")
    machine.succeed("kill -0 $(cat /tmp/flood)", "kill $(cat /tmp/flood)")
    # Nothing of theirs is left: neither the names nor what the module is held by.
    machine.succeed("ip netns add b")
    run(machine, RULES, name="again", namespace="b")
    machine.succeed(
        f"ip netns exec b {rules['nft_match']}", "lunatik stop again", "lunatik stop rules"
    )
    assert machine.succeed("lunatik list") == ""
    machine.succeed("ip netns delete b")
    machine.wait_until_succeeds("rmmod lunatik_xtable")


def test_copy_does_not_hold_a_namespace_that_goes(machine: Machine) -> None:
    wire(machine, ROUTED)
    run(
        machine,
        PORT
        + """
        local kept
        local timer = require("timer").new(function() print("still from", kept:ifindex()) end)
        netfilter.register{
            hook = function(skb)
                if port(skb) == 9999 then
                    assert(skb:conntrack())
                    kept = skb:copy()
                    timer:start(2000)
                end
                return ACCEPT
            end,
            pf = nf.proto.IPV4, hooknum = nf.inet.LOCAL_IN, conntrack = true,
        }""",
        namespace="b",
    )
    index = machine.succeed("ip netns exec b cat /sys/class/net/vb/ifindex").strip()
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]
    # They are cleaned up one after the other: the last of c says that all of b is gone.
    machine.succeed(
        "ip netns delete b; ip netns add c",
        "ip link add rc type veth peer name vc netns c; ip netns delete c",
    )
    machine.wait_until_succeeds("! ip link show rc")
    machine.wait_until_succeeds(f"dmesg | grep 'still from.*{index}'")
    machine.succeed("lunatik stop hook")


def test_what_is_refused_is_forgotten(machine: Machine) -> None:
    run(
        machine,
        FORGETS
        + """
        local netfilter, nf = require("netfilter"), require("linux.nf")
        forgets(50, function(kept)
            local function one() return kept end
            kept[one] = true
            local ok, why = pcall(netfilter.register, {
                hook = one, pf = nf.proto.NETDEV, hooknum = nf.netdev.INGRESS, dev = "nosuch",
            })
            assert(not ok and tostring(why):find("ENODEV"), why)
        end)
        """,
    )


def test_copies_are_on_the_account_of_their_runtime(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.succeed("echo 2097152 >/sys/module/lunatik/parameters/memory")
    hook(
        machine,
        "IPV4",
        "inet.LOCAL_IN",
        """
        if port(skb) == 9999 then
            kept = {}
            local ok, why
            repeat
                ok, why = pcall(function()
                    kept[#kept + 1] = skb:copy()
                    kept[#kept]:resize(60000)
                end)
            until not ok or #kept > 60
            print("kept", #kept, why)
        elseif port(skb) == 9998 then
            kept = nil
            collectgarbage()
        end
        return ACCEPT""",
    )
    before = float(counters(machine, "hook")["MEMORY"].removesuffix("KiB"))
    assert flow(machine, "a", "-", "10.1.0.1", 9999) == ["arrived"]
    machine.wait_until_succeeds("dmesg | grep 'kept.*[23][0-9].*not enough memory'")
    assert float(counters(machine, "hook")["MEMORY"].removesuffix("KiB")) > 1800
    assert flow(machine, "a", "-", "10.1.0.1", 9998) == ["arrived"]
    assert float(counters(machine, "hook")["MEMORY"].removesuffix("KiB")) < before + 100
    machine.succeed("lunatik stop hook")


@pytest.mark.limit(600)
@pytest.mark.amount(1_000, in_ci=200)
def test_again_and_again_in_and_out_under_traffic(machine: Machine, amount: int) -> None:
    wire(machine, ROUTED)
    met = "local shared = require('lunatik')._ENV shared.met = (shared.met or 0) + 1 "
    script = HOOK.format(body=met + DROP, pf="INET", hook="inet.FORWARD", options="")
    machine.copy_to(script.encode(), "/lib/modules/lua/hook.lua")
    machine.succeed(
        # Until it is killed, however slow the flavour.
        "python3 /tmp/clients.py flood a 10.2.0.2 3600 >/tmp/flooded 2>&1 & echo $! >/tmp/flood"
    )
    # Every second one stays until it has met a packet, of the own CPU, too.
    for _ in range(amount // 50):
        machine.lua(
            "local lunatik, linux = require('lunatik'), require('linux') "
            "local shared = lunatik._ENV "
            "for number = 1, 50 do "
            "local before, runtime = shared.met, lunatik.runtime('hook', 'softirq') "
            "for _ = 1, number % 2 == 0 and 1000 or 0 do "
            "if shared.met ~= before then break end linux.schedule(1) end "
            "runtime:stop() end"
        )
    machine.succeed("kill -0 $(cat /tmp/flood)", "kill $(cat /tmp/flood)")
    assert machine.succeed("lunatik list") == ""
    met = int(machine.lua("return require('lunatik')._ENV.met or 0"))
    assert met >= amount // 2, "packets met them"
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]


def send(count: int) -> str:
    """The command that sends so many datagrams from a to b at once."""
    program = (
        "import socket; here = socket.socket(2, 2); "
        f"[here.sendto(b'lab', ('10.2.0.2', 9000)) for _ in range({count})]"
    )
    return f'ip netns exec a python3 -c "{program}"'


@pytest.mark.parametrize(("fallback", "fate"), [("open", "arrived"), ("closed", "lost")])
def test_error_is_told_once_and_counted_each_time(
    machine: Machine, fallback: str, fate: str
) -> None:
    wire(machine, ROUTED)
    # However long a thousand tracebacks take: packets are to meet the script.
    machine.succeed("echo 100 > /sys/module/lunatik/parameters/interrupt_share")
    body = "if port(skb) then error('rotten') end return ACCEPT"
    for started, amount in enumerate((1000, 20), start=1):
        hook(machine, "IPV4", "inet.FORWARD", body, options=f'fallback = "{fallback}"')
        assert flow(machine, "a", "b", "10.2.0.2", 9000) == [fate]
        machine.succeed(send(amount - 1))
        assert counters(machine, "hook")["ERRORS"] == str(amount)
        assert counters(machine, "hook")["STATE"] == "running"
        log = machine.succeed("dmesg")
        assert log.count("rotten") == log.count("stack traceback") == started
        machine.succeed("lunatik stop hook")


def test_error_of_each_hook_is_told(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.succeed("echo 100 > /sys/module/lunatik/parameters/interrupt_share")
    # More than the log takes of a runtime's other errors in this time.
    amount = 30
    run(
        machine,
        PORT
        + f"""
        for number = 1, {amount} do
            netfilter.register{{
                hook = function(skb) return port(skb) and error("rotten") or ACCEPT end,
                pf = nf.proto.IPV4, hooknum = nf.inet.FORWARD, priority = number,
            }}
        end""",
    )
    machine.succeed(send(3))
    assert counters(machine, "hook")["ERRORS"] == str(3 * amount)
    # That is more than interrupts may write at once: the last are told of later.
    told = "dmesg | grep -c 'stack traceback'"
    machine.wait_until_succeeds(f"{send(1)}; [ $({told}) = {amount} ]")
    machine.succeed("sleep 5", send(3))
    assert machine.succeed(told) == f"{amount}\n"


@pytest.mark.parametrize(("fallback", "fate"), [("open", "arrived"), ("closed", "lost")])
def test_broken_budget_ends_the_script_not_the_traffic(
    machine: Machine, fallback: str, fate: str
) -> None:
    wire(machine, ROUTED)
    guarded = "if port(skb) == 9999 then pcall(function() while true do end end) end return ACCEPT"
    hook(machine, "IPV4", "inet.FORWARD", guarded, options=f'fallback = "{fallback}"')
    assert flow(machine, "a", "b", "10.2.0.2", 9998) == ["arrived"]
    flow(machine, "a", "b", "10.2.0.2", 9999)
    assert flow(machine, "a", "b", "10.2.0.2", 9998, 9997) == [fate, fate]
    listed = machine.succeed("lunatik list")
    assert "broken" in listed
    assert "exceeded" in listed
    before = counters(machine, "hook")
    machine.succeed(send(50))
    assert counters(machine, "hook") == before, "nobody calls it any more"
    assert machine.succeed("dmesg | grep -c exceeded").strip() == "1"
    machine.succeed("lunatik stop hook")
    assert flow(machine, "a", "b", "10.2.0.2", 9998) == ["arrived"]


def test_table_shared_with_a_process_that_edits_it(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.lua("require('lunatik')._ENV.blocked = require('rcu').table()")
    run(
        machine,
        PORT
        + """
        local blocked = require("lunatik")._ENV.blocked
        netfilter.register{
            hook = function(skb)
                local number = port(skb)
                return number and blocked[tostring(number)] and DROP or ACCEPT
            end,
            pf = nf.proto.INET, hooknum = nf.inet.FORWARD,
        }""",
    )
    edit = "require('lunatik')._ENV.blocked['9999'] = {}"
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]
    machine.lua(edit.format("true"))
    assert flow(machine, "a", "b", "10.2.0.2", 9999, 9998) == ["lost", "arrived"]
    machine.lua(edit.format("nil"))
    assert flow(machine, "a", "b", "10.2.0.2", 9999) == ["arrived"]


#: What a process writes meanwhile; each a whole number of the same digits.
EDITOR = """
local linux, thread = require("linux"), require("thread")
local edited = require("lunatik")._ENV.edited
return function()
    local round = 0
    while not thread.shouldstop() do
        round = round % 9 + 1
        for _, key in ipairs{"one", "other"} do
            edited[key] = tonumber(tostring(round):rep(15))
        end
        edited.gone = round % 2 == 0 or nil
        -- Others come and go where these stand.
        for i = 1, 50 do edited[tostring(i)] = round > 1 and round or nil end
        linux.schedule(1)
    end
end"""


@pytest.mark.limit(120)
def test_table_is_read_while_a_process_edits_it(machine: Machine) -> None:
    """Each value that a packet finds was written so, and later ones are found."""
    wire(machine, ROUTED)
    machine.lua(
        "local lunatik, rcu = require('lunatik'), require('rcu') "
        "lunatik._ENV.edited, lunatik._ENV.seen = rcu.table(16), rcu.table() "
        "for _, key in ipairs{'one', 'other'} do lunatik._ENV.edited[key] = 0 end"
    )
    run(
        machine,
        PORT
        + """
        local shared = require("lunatik")._ENV
        local edited, seen = shared.edited, shared.seen
        local function note(what)
            if not seen[what] then seen[what] = true end
        end
        netfilter.register{
            hook = function(skb)
                if port(skb) then
                    note(tostring(edited.one))
                    note(tostring(edited.other))
                    note("gone: " .. tostring(edited.gone))
                end
                return ACCEPT
            end,
            pf = nf.proto.INET, hooknum = nf.inet.FORWARD,
        }""",
    )
    machine.copy_to(EDITOR.encode(), "/lib/modules/lua/editor.lua")
    machine.succeed("lunatik spawn editor")
    assert int(machine.succeed("python3 /tmp/clients.py flood a 10.2.0.2 5")) > 100
    machine.succeed("lunatik stop editor")
    said = machine.lua(
        "local said = {} "
        "require('rcu').map(require('lunatik')._ENV.seen, function(key) said[#said + 1] = key end) "
        "return table.concat(said, ',')"
    )
    seen = set(said.strip().split(","))
    written = {"0"} | {str(digit) * 15 for digit in range(1, 10)}
    assert seen - {"gone: true", "gone: nil"} <= written
    assert len(seen & written) > 3, "what was written meanwhile"
    assert {"gone: true", "gone: nil"} <= seen


def test_half_a_registration_leaves_nothing_behind(machine: Machine) -> None:
    """The kernel takes 1024 hooks of a position; an inet hook is one of IPv4 and one of IPv6."""
    wire(machine, ROUTED)
    machine.succeed("nice -n 19 python3 /tmp/clients.py flood a 10.1.0.1 5 >/tmp/sent &")
    full = (
        PORT
        + """
        local six = {hook = function() return ACCEPT end, pf = nf.proto.IPV6,
                     hooknum = nf.inet.LOCAL_IN}
        for _ = 1, 512 do netfilter.register(six) end"""
    )
    for name in ("one", "two"):  # as many as each may have
        run(machine, full, name=name)
    run(
        machine,
        PORT
        + """
        local function pass() return ACCEPT end
        local both = {hook = pass, pf = nf.proto.INET, hooknum = nf.inet.LOCAL_IN}
        local refused = 0
        for _ = 1, 20 do
            local ok, why = pcall(netfilter.register, both)
            if not ok and why:find("E2BIG") then refused = refused + 1 end
        end
        print("refused", refused)""",
    )
    machine.wait_until_succeeds("grep . /tmp/sent")
    machine.succeed("dmesg | grep 'refused.*20'", "lunatik stop hook")


#: Who of a percpu script has met whom: `cpu0` and `cpu1`, in the order of their loading.
PERCPU = (
    PORT
    + """
    local shared = require("lunatik")._ENV
    local me = shared.loaded or 0
    shared.loaded = me + 1
    netfilter.register{
        hook = function(skb)
            local number = port(skb)
            if not number then return ACCEPT end
            shared["cpu" .. me] = (shared["cpu" .. me] or 0) + 1
            return number == 9999 and DROP or ACCEPT
        end,
        pf = nf.proto.INET, hooknum = nf.inet.FORWARD, fallback = "closed",
    }"""
)


def flow_on(machine: Machine, cpu: int, *ports: int) -> list[str]:
    """The same as flow() from a to b, with all that a packet meets done by one CPU."""
    words = " ".join(map(str, ports))
    return machine.succeed(f"taskset -c {cpu} python3 /tmp/flow.py a b 10.2.0.2 {words}").split()


@pytest.mark.machine(cpus=2)
def test_each_cpu_has_a_hook_of_its_own(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.copy_to(PERCPU.encode(), "/lib/modules/lua/hook.lua")
    machine.succeed("lunatik run hook softirq percpu")
    for cpu in (0, 1):
        assert flow_on(machine, cpu, 9999, 9998, 9997) == ["lost", "arrived", "arrived"]
        met = machine.lua(
            "local shared = require('lunatik')._ENV "
            "return (shared.cpu0 or 0) .. ' ' .. (shared.cpu1 or 0)"
        )
        assert met.split() == ["3", "3" if cpu else "0"]
    machine.succeed("lunatik stop hook")
    assert flow_on(machine, 1, 9999) == ["arrived"]


@pytest.mark.machine(cpus=2)
def test_packets_of_a_cpu_without_a_runtime_pass(machine: Machine) -> None:
    wire(machine, ROUTED)
    machine.copy_to(PERCPU.encode(), "/lib/modules/lua/hook.lua")
    first = 'first = require("lunatik").runtime("hook", "softirq", {cpu = 0})'
    machine.copy_to(first.encode(), "/lib/modules/lua/first.lua")
    machine.succeed("lunatik run first")
    assert flow_on(machine, 0, 9999) == ["lost"]
    assert flow_on(machine, 1, 9999) == ["arrived"]
