# SPDX-License-Identifier: GPL-2.0-only
"""The lab proves itself: every way to fail gets its status, and neighbours pass."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.limit(400), pytest.mark.slow]

Runner = Callable[..., Any]

MIXED = """
def test_good(machine):
    machine.succeed("true")

def test_assertion(machine):
    assert machine.succeed("echo hi") == "ho"

def test_command(machine):
    machine.succeed("echo said; exit 3")

def test_skipped():
    pytest.skip("not here")

def test_panic(machine):
    machine.succeed("echo c > /proc/sysrq-trigger")

def test_splat_in_passing(machine):
    machine.succeed("echo '<4>BUG: scheduling while atomic: me/1/0x2' > /dev/kmsg")

@pytest.fixture
def untidy(machine):
    yield machine
    machine.succeed("echo '<4>BUG: scheduling while atomic: late/1/0x2' > /dev/kmsg")

def test_splat_in_teardown(untidy):
    untidy.succeed("true")

@pytest.mark.splat("scheduling while atomic: me")
def test_expected_splat(machine):
    machine.succeed("echo '<4>BUG: scheduling while atomic: me/1/0x2' > /dev/kmsg")

@pytest.mark.splat("scheduling while atomic: me")
def test_expected_splat_that_never_came(machine):
    machine.succeed("true")

def test_crash_that_was_asked_for(machine):
    machine.crash()

def test_qemu_killed(machine):
    os.kill(machine.body.pid, signal.SIGKILL)
    machine.succeed("true")

def test_qemu_killed_unseen(machine):
    os.kill(machine.body.pid, signal.SIGKILL)

def test_powers_itself_off(machine):
    machine.succeed("poweroff", "sleep 20")

@pytest.mark.limit(3)
def test_over_its_limit(machine):
    machine.succeed("sleep 25")

def test_command_over_its_time(machine):
    machine.succeed("sleep 25", timeout=2)

@pytest.mark.limit(3)
def test_tries_again_and_again(machine):
    while True:
        try:
            machine.succeed("sleep 25")
        except Exception:
            time.sleep(0.1)

def test_splat_behind_a_loglevel(machine):
    machine.succeed("dmesg -n 1; echo '<4>BUG: scheduling while atomic: me/1/0x2' > /dev/kmsg")

def test_console_turned_off(machine):
    machine.succeed("echo N > /sys/module/printk/parameters/ignore_loglevel", "dmesg -n 1")

def test_copies_what_is_not_there(machine):
    machine.copy_from("/none")

def test_speaks_to_a_stopped_machine(machine):
    machine.stop()
    machine.succeed("true")

def test_exits(machine):
    raise SystemExit(2)

@pytest.fixture
def broken(machine):
    machine.succeed("exit 4")

def test_error_in_setup(broken):
    pass

@pytest.fixture
def left_broken(machine):
    yield machine
    machine.succeed("exit 5")

def test_error_in_teardown(left_broken):
    left_broken.succeed("true")

@pytest.fixture
def elsewhere():
    pytest.skip("not here either")

def test_skipped_in_setup(elsewhere):
    pass

@pytest.mark.limit(3)
def test_endless_loop():
    while True:
        pass

@pytest.mark.xfail(reason="known")
def test_fails_as_expected():
    assert 0

@pytest.mark.xfail(reason="known")
def test_splat_where_failure_is_expected(machine):
    machine.succeed("echo '<4>BUG: scheduling while atomic: me/1/0x2' > /dev/kmsg", "false")

@pytest.mark.xfail(reason="known", strict=True)
def test_good_where_failure_is_expected():
    pass

@pytest.mark.splat("(no pattern")
def test_mark_that_is_wrong(machine):
    machine.succeed("echo '<4>BUG: scheduling while atomic: me/1/0x2' > /dev/kmsg")

def test_user_space_says_bug(machine):
    machine.succeed("echo 'BUG: KASAN: not the kernel' > /dev/console")

def test_good_after_all(machine):
    machine.succeed("true")
"""

EXPECTED = {
    "test_good": "passed",
    "test_assertion": "failed",
    "test_command": "failed",
    "test_skipped": "skipped",
    "test_panic": "kernel",
    "test_splat_in_passing": "kernel",
    "test_splat_in_teardown": "kernel",
    "test_expected_splat": "passed",
    "test_expected_splat_that_never_came": "failed",
    "test_crash_that_was_asked_for": "passed",
    "test_qemu_killed": "infra",
    "test_qemu_killed_unseen": "infra",
    "test_powers_itself_off": "failed",
    "test_over_its_limit": "failed",
    "test_command_over_its_time": "failed",
    "test_tries_again_and_again": "failed",
    "test_splat_behind_a_loglevel": "kernel",
    "test_console_turned_off": "infra",
    "test_copies_what_is_not_there": "failed",
    "test_speaks_to_a_stopped_machine": "failed",
    "test_exits": "failed",
    "test_error_in_setup": "failed",
    "test_error_in_teardown": "failed",
    "test_skipped_in_setup": "skipped",
    "test_endless_loop": "failed",
    "test_fails_as_expected": "skipped",
    "test_splat_where_failure_is_expected": "kernel",
    "test_good_where_failure_is_expected": "failed",
    "test_mark_that_is_wrong": "failed",
    "test_user_space_says_bug": "passed",
    "test_good_after_all": "passed",
}


def judged(run: Any) -> dict[str, object]:
    """Function name -> all that a test was judged by, and for."""
    return {
        test.id.partition("::")[2]: (
            test.status,
            test.exit,
            test.message,
            [(splat.kind, splat.node, splat.phase, splat.expected) for splat in test.splats],
        )
        for test in run.cell.tests
    }


@pytest.mark.limit(900)  # two runs, some of whose tests end by the clock
def test_every_way_to_fail_has_its_status(inner: Runner) -> None:
    run, beside = inner(MIXED), inner(MIXED, workers=2)
    assert run.statuses == EXPECTED
    assert run.status == 4  # the killed QEMUs; the highest wins
    # Which processes share the tests changes no verdict.
    assert judged(beside) == judged(run)
    assert (beside.status, beside.cell.workers) == (run.status, 2)
    panic = run["test_panic"]
    assert "sysrq triggered crash" in panic.message
    late = run["test_splat_in_teardown"].splats[0]
    assert (late.kind, late.node, late.phase) == ("atomic-schedule", "machine", "teardown")
    assert run["test_command"].message.endswith("ended with status 3, expected success")
    wrong = run["test_mark_that_is_wrong"]
    assert wrong.exit == 2
    assert re.match(r"test_inner\.py:\d+: the mark splat\('\(no pattern'\) is ", wrong.message)


def test_blames_the_node_that_did_it(inner: Runner) -> None:
    run = inner(
        """
        def test_two(machines):
            alice, bob = machines("alice", "bob")
            bob.succeed("echo '<4>WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2' > /dev/kmsg")
            alice.succeed("true")
        """
    )
    assert run.status == 1
    splat = run["test_two"].splats[0]
    assert (splat.node, splat.phase, splat.kind) == ("bob", "test", "warn")
    assert run["test_two"].message.startswith("bob: WARNING")


def test_a_failure_leaves_a_bundle(inner: Runner) -> None:
    run = inner(
        """
        def test_panics(machine):
            machine.succeed("echo c > /proc/sysrq-trigger")
        """
    )
    bundle = run.directory / "bundles" / "test_inner.test_panics"
    assert {file.name for file in bundle.iterdir()} >= {
        "README", "cell.json", "config", "build.json", "test.json", "stacks.txt", "nodes",
    }  # fmt: skip
    assert {file.name for file in (bundle / "nodes" / "machine").iterdir()} >= {
        "argv", "console.log", "kernel.log",
    }  # fmt: skip
    assert "drivers/tty/sysrq.c:" in (bundle / "stacks.txt").read_text()


def test_stacks_in_a_module_have_files_and_lines(inner: Runner) -> None:
    run = inner(
        """
        def test_crashes(machine):
            machine.module("lkdtm")
            machine.execute("echo BUG > /sys/kernel/debug/provoke-crash/DIRECT")
        """
    )
    stacks = (run.directory / "bundles" / "test_inner.test_crashes" / "stacks.txt").read_text()
    # The kernel says itself where its BUG() stands.
    said = re.match(r"machine: kernel BUG at (drivers/misc/lkdtm/bugs\.c:\d+)!\n", stacks)
    assert said is not None, stacks
    innermost = rf"lkdtm_BUG\+\S+ \[lkdtm\] +\S*{said[1]} \(lkdtm_BUG\)\n"
    assert re.match(innermost, stacks[said.end() :]), stacks
    assert re.search(r"\n\S+ \[lkdtm\] +\S*drivers/misc/lkdtm/core\.c:\d+ ", stacks), stacks


def test_a_bundle_tells_the_network_and_where_it_failed(inner: Runner) -> None:
    run = inner(
        """
        @pytest.mark.limit(50)
        @pytest.mark.topology("pair", bridge=True)
        def test_lost(net):
            with net.capture("right") as wire:
                net["left"].succeed("ping -c 1 10.0.0.2")
            assert not wire.packets(), "there is something"
        """
    )
    bundle = run.directory / "bundles" / "test_inner.test_lost"
    nodes = json.loads((bundle / "topology.json").read_text())["nodes"]
    assert nodes.keys() >= {"left", "right"}
    assert list(bundle.glob("*.pcap"))
    assert 'assert not wire.packets(), "there is something"' in (bundle / "README").read_text()


def test_a_test_without_a_line_of_its_own_is_shown_by_its_first(inner: Runner) -> None:
    run = inner(
        """
        @pytest.mark.limit(50)
        def test_warns(machine):
            machine.succeed("echo '<4>WARNING: CPU: 0 PID: 1 at x.c:1 f+0x1/0x2' > /dev/kmsg")
        """
    )
    readme = (run.directory / "bundles" / "test_inner.test_warns" / "README").read_text()
    assert ": def test_warns(machine):" in readme


def test_a_hung_commands_stacks_are_kept(inner: Runner) -> None:
    run = inner(
        """
        def test_waits(machine):
            machine.succeed("mkfifo /tmp/nobody; cat /tmp/nobody", timeout=3)
        """
    )
    test = run["test_waits"]
    assert test.status == "failed"
    assert "did not end within" in test.message
    stacks = (run.directory / test.nodes[0].directory / "stacks.log").read_text()
    # Who hangs, and in what: it had not been killed yet.
    assert re.search(r"task:cat .*\n(.*\n){1,12}.*(fifo_open|wait_for_partner)", stacks)


def test_who_outlasts_the_limit_is_kept_with_a_stack(inner: Runner) -> None:
    run = inner(
        """
        @pytest.mark.limit(3)
        def test_sleeps(machine):
            machine.succeed("sleep 25")
        """
    )
    assert "took longer than its limit of" in run["test_sleeps"].message
    bundle = run.directory / "bundles" / "test_inner.test_sleeps"
    stacks = (bundle / "nodes" / "machine" / "stacks.log").read_text()
    # It had not been ended yet.
    sleeper = r"task:sleep .*\n.*Call Trace:\n(.*\n){1,12}.* (do|hrtimer)_nanosleep\+"
    assert re.search(sleeper, stacks), stacks[-2000:]


def test_a_kernel_that_does_not_come_up_is_blamed_and_its_log_kept(inner: Runner) -> None:
    run = inner(
        """
        import lab.vm.boot
        lab.vm.boot.BOOT_TIMEOUT = 4.0

        @pytest.mark.machine(cold=True, cmdline=("init=/bin/sleep", "--", "1000"))
        def test_hangs(machine):
            pass

        @pytest.mark.machine(cold=True, cmdline=("init=/bin/false",))
        def test_panics(machine):
            pass
        """
    )
    assert run.statuses == {"test_hangs": "kernel", "test_panics": "kernel"}
    assert run.status == 1
    assert "of its start; its console ends with" in run["test_hangs"].message
    assert "Kernel panic" in run["test_panics"].message
    for test in ("test_hangs", "test_panics"):
        log = run.directory / "bundles" / f"test_inner.{test}" / "nodes" / "machine" / "kernel.log"
        assert "Linux version" in log.read_text()


def test_a_kernel_that_hangs_until_the_limit_is_blamed(inner: Runner) -> None:
    run = inner(
        """
        @pytest.mark.limit(5)
        def test_spins(machine):
            machine.module("lkdtm")
            # Without interrupts: it answers neither a question nor a key.
            machine.execute("echo HARDLOCKUP > /sys/kernel/debug/provoke-crash/DIRECT")
        """
    )
    test = run["test_spins"]
    assert (test.status, run.status) == ("kernel", 1), test.message
    stacks = (run.directory / test.nodes[0].directory / "stacks.log").read_text()
    assert "registers, as QEMU sees them" in stacks


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("def test_a(machine): machine.succeed('true')", 0),
        ("def test_a(machine): machine.succeed('false')", 1),
        ("def helper(): pass", 2),
        ("def test_a(): pytest.skip('x')", 2),
        ("def test_a(:", 1),
    ],
    ids=["passed", "failed", "none collected", "all skipped", "does not compile"],
)
def test_exit_status(inner: Runner, source: str, status: int) -> None:
    assert inner(source).status == status


def test_a_stopped_qemu_is_not_the_kernels_fault(inner: Runner) -> None:
    run = inner(
        """
        def test_stops(machine):
            os.kill(machine.body.pid, signal.SIGSTOP)
            machine.succeed("true", timeout=3)
        """
    )
    assert run["test_stops"].status == "infra"
    assert "is stopped" in run["test_stops"].message


def test_a_hung_kernel_is_blamed_and_its_stacks_are_kept(inner: Runner) -> None:
    # A real-time task that never sleeps starves the agent, on the only CPU:
    # to the lab that is a guest which does not answer while QEMU runs.
    run = inner(
        """
        def test_hangs(machine):
            # Silence is what is looked for here, not the kernel's own alarm.
            machine.succeed("echo 1 > /sys/module/rcupdate/parameters/rcu_cpu_stall_suppress")
            machine.succeed("echo -1 > /proc/sys/kernel/sched_rt_runtime_us")
            # Since 6.12 a deadline server gives 50 ms of each second to the
            # others all the same ("sched/fair: Add trivial fair server").
            machine.succeed("cd /sys/kernel/debug/sched; for file in fair_server/cpu*/runtime; "
                            "do [ ! -e $file ] || echo 0 > $file; done")
            spin = "while :; do :; done"
            machine.execute(f"setsid chrt -f 99 sh -c '{spin}' & sleep 20", timeout=3)
        """
    )
    test = run["test_hangs"]
    assert test.status == "kernel"
    assert "hangs" in test.message
    stacks = (run.directory / test.nodes[0].directory / "stacks.log").read_text()
    assert "sysrq: " in stacks
    assert "RIP=" in stacks
