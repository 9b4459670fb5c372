# SPDX-License-Identifier: GPL-2.0-only
"""The patched kernel's hook itself, with fixed verdicts in the place of Lua."""

from __future__ import annotations

from pathlib import Path

import pytest
from twins import load

from lab.testing.bpf import Compiler
from lab.vm.machine import Machine

CONTROL = "/dev/test_xdp_lua"
HERE = Path(__file__).parent

ATTACHED = {"drv": 1, "skb": 2}
OFF = {"drv": "xdpdrv off", "skb": "xdpgeneric off"}
OTHER = {"drv": "skb", "skb": "drv"}

pytestmark = [pytest.mark.usefixtures("hooks"), pytest.mark.parametrize("mode", ["skb", "drv"])]


@pytest.fixture
def router(node: Machine) -> Machine:
    node.module("test_xdp_lua")
    for program in ("show_hook.py", "set_xdp.py", "unloads.py"):
        node.copy_to(HERE / program, f"/tmp/{program}")
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


def test_user_takes_off_what_is_in_that_mode(router: Machine, mode: str) -> None:
    router.succeed(request("attach", "r0", mode, "drop"))
    router.execute(f"ip link set r0 {OFF[OTHER[mode]]}")
    assert shown(router) == f"{ATTACHED[mode]} test:drop"
    router.fail("reach")


def test_name_is_told_and_not_taken(router: Machine, mode: str) -> None:
    """Only the kernel attaches hooks."""
    router.succeed(request("attach", "r0", mode, "pass"))
    assert router.succeed("python3 /tmp/set_xdp.py r0 name other").strip() == "EINVAL"
    assert shown(router) == f"{ATTACHED[mode]} test:pass"


def test_program_does_not_replace_a_hook(router: Machine, bpf: Compiler, mode: str) -> None:
    """Nor where it says which program it expects there."""
    where = load(router, bpf(HERE / "pass.bpf.c"), "other")
    router.succeed(request("attach", "r0", mode, "drop"))
    one = f"{where}/progs/pass"
    said = router.succeed(f"python3 /tmp/set_xdp.py r0 replace {one} {one}").strip()
    assert said in {"EBUSY", "EEXIST"}, said
    assert shown(router) == f"{ATTACHED[mode]} test:drop"


def test_nobody_is_told_that_a_program_went(router: Machine, bpf: Compiler, mode: str) -> None:
    """For nobody was told that one came; perf keeps a list of symbols by that."""
    load(router, bpf(HERE / "pass.bpf.c"), "other")
    both = f"{request('attach', 'r0', mode, 'pass')}; {request('detach', 'r0')}"
    # The first program of all brings a dispatcher.
    router.succeed(both)
    assert router.succeed(f'python3 /tmp/unloads.py sh -c "{both}"') == ""
    # It does hear of those that were loaded.
    gone = router.succeed("python3 /tmp/unloads.py rm -r /sys/fs/bpf/other").split()
    assert "ksymbol" in gone and "bpf" in gone and "gone" in gone and "come" not in gone


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
