# SPDX-License-Identifier: GPL-2.0-only
"""The patched kernel's hook itself, with fixed verdicts in the place of Lua."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.vm.machine import Machine

CONTROL = "/dev/test_xdp_lua"
SHOW = Path(__file__).with_name("show_hook.py")

ATTACHED = {"drv": 1, "skb": 2}
OFF = {"drv": "xdpdrv off", "skb": "xdpgeneric off"}

pytestmark = [pytest.mark.usefixtures("hooks"), pytest.mark.parametrize("mode", ["skb", "drv"])]


@pytest.fixture
def router(node: Machine) -> Machine:
    node.module("test_xdp_lua")
    node.copy_to(SHOW, "/tmp/show_hook.py")
    return node


def request(*words: str) -> str:
    return f"echo {' '.join(words)} > {CONTROL}"


def shown(machine: Machine) -> str:
    return machine.succeed("python3 /tmp/show_hook.py r0").strip()


def test_hook_drops_and_rtnetlink_says_so(router: Machine, mode: str) -> None:
    assert shown(router) == "0 -"
    router.succeed(request("attach", "r0", mode, "drop"))
    router.fail("reach")
    assert shown(router) == f"{ATTACHED[mode]} test:drop"
    router.succeed(request("detach", "r0"), "reach")
    assert shown(router) == "0 -"


def test_user_takes_it_off(router: Machine, mode: str) -> None:
    router.succeed(request("attach", "r0", mode, "drop"))
    router.succeed(f"ip link set r0 {OFF[mode]}", "reach")
    assert router.succeed(f"cat {CONTROL}").strip() == "detached 1"


def test_device_takes_one_hook(router: Machine, mode: str) -> None:
    router.succeed(request("attach", "r0", mode, "pass"))
    router.fail(request("attach", "r0", "skb", "drop"))
    router.fail(request("attach", "r0", "drv", "drop"))
    router.succeed("reach")


def test_helpers_keep_their_limits(router: Machine, mode: str) -> None:
    router.succeed(request("attach", "r0", mode, "helpers"), "reach")
    line = router.succeed(f"grep ^r0 {CONTROL}").split()
    assert int(line[3]) > 0, "the hook never ran"
    assert line[4:] == ["errors", "0"]
