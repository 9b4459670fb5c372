# SPDX-License-Identifier: GPL-2.0-only
"""Many at once, and many times over."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.vm.machine import Machine

STRESS = Path(__file__).with_name("stress.py")
AT_A_TIME = 20

MEMBER = """
local rcu, data = require("rcu"), require("data")
local mine = data.new(32)
return function(box, queue)
	box.mine, box.count = mine, (box.count or 0) + 1
	pcall(queue.push, queue, "x")
	rcu.map(box, function(key, value) mine:setint32(0, #key) end)
	return box, queue
end
"""

WORKER = """
local linux, thread = require("linux"), require("thread")
return function() while not thread.shouldstop() do linux.schedule(1) end end
"""


def fight(machine: Machine, seconds: int) -> None:
    """Run the stress, and see that nothing is left."""
    machine.copy_to(MEMBER.encode(), "/lib/modules/lua/member.lua")
    machine.copy_to(WORKER.encode(), "/lib/modules/lua/worker.lua")
    machine.copy_to(STRESS, "/tmp/stress.py")
    done = machine.execute(f"python3 /tmp/stress.py {seconds}", timeout=seconds + 60)
    print(done.stdout)
    assert done.status == 0, done.stderr
    machine.wait_until_succeeds('test -z "$(lunatik list)"')
    machine.succeed("lunatik unload", "lunatik load")
    assert machine.lua("1 + 1") == "2"


@pytest.mark.slow
@pytest.mark.limit(240)
@pytest.mark.amount(60, in_ci=15)
def test_four_at_once(machine: Machine, amount: int) -> None:
    fight(machine, amount)


@pytest.mark.slow
@pytest.mark.limit(240)
@pytest.mark.machine(cpus=2)
@pytest.mark.amount(60, in_ci=15)
def test_four_at_once_on_two_processors(machine: Machine, amount: int) -> None:
    fight(machine, amount)


#: Leaves a device, a table and what is in it to whoever takes it down.
GUEST = """
local device, table = require("device"), require("rcu").table()
for number = 1, 20 do table["key" .. number] = number end
device.new{name = "guest", read = function(_, length, offset)
	return ("served\\n"):sub(offset + 1, offset + length)
end}
"""

#: One turn: a session starts a runtime, which has bindings loaded, and leaves it.
TURN = """
modprobe -a lunatik_device lunatik_rcu || exit 1
exec 3<>/dev/lunatik
echo 'guest = require("lunatik").runtime("guest")' >&3
read answer <&3
read answer </dev/guest
[ "$answer" = served ] || exit 2
exec 3>&-
for try in 1 2 3 4 5 6 7 8 9; do
	rmmod lunatik_device lunatik_rcu lunatik 2>/dev/null
	[ -d /sys/module/lunatik ] || break
	sleep 0.05
done
[ ! -d /sys/module/lunatik ] || exit 3
"""


@pytest.mark.slow
@pytest.mark.limit(2400)
@pytest.mark.amount(500, in_ci=40)
def test_five_hundred_loads(machine: Machine, amount: int) -> None:
    """Each with a runtime and its bindings in between: there is something to take down.

    Some at a time, so that a busy host does not make the whole look hung.
    """
    machine.copy_to(GUEST.encode(), "/lib/modules/lua/guest.lua")
    machine.succeed("lunatik unload")
    for _ in range(amount // AT_A_TIME):
        machine.succeed(f"for turn in $(seq {AT_A_TIME}); do {TURN} done", timeout=120)
    machine.succeed("lunatik load")
    assert machine.lua("1 + 1") == "2"
