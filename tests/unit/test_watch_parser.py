# SPDX-License-Identifier: GPL-2.0-only
"""The kernel log parser: where a report begins, what it is, where it ends."""

from __future__ import annotations

import pytest

from lab.watch.event import Event
from lab.watch.parser import Parser, parse
from lab.watch.policy import load_policy

POLICY = load_policy()

WARNING = """\
[    5.000000] ------------[ cut here ]------------
[    5.000100] WARNING: CPU: 0 PID: 70 at net/core/dev.c:100 probe_me+0x12/0x30
[    5.000200] RIP: 0010:probe_me+0x12/0x30
[    5.000300] Call Trace:
[    5.000400]  <TASK>
[    5.000500]  ? __warn+0x80/0x100
[    5.000600]  caller_one+0x10/0x20
[    5.000700]  caller_two+0x10/0x20 [mod]
[    5.000800]  </TASK>
[    5.000900] ---[ end trace 0000000000000000 ]---
"""


def events(text: str) -> list[Event]:
    return parse(text.splitlines(), policy=POLICY)


def one(text: str) -> Event:
    found = events(text)
    assert len(found) == 1, found
    return found[0]


def line(text: str) -> str:
    return f"[    1.000000] {text}"


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("kasan", "BUG: KASAN: slab-out-of-bounds in foo+0x1/0x2 [mod]"),
        ("kcsan", "BUG: KCSAN: data-race in a / b"),
        ("kfence", "BUG: KFENCE: use-after-free read in foo+0x1/0x2"),
        ("ubsan", "UBSAN: array-index-out-of-bounds in lib/x.c:12:3"),
        ("refcount", "refcount_t: underflow; use-after-free."),
        ("list-corruption", "list_add corruption. prev->next should be next (x), but was y."),
        ("list-corruption", "list_del corruption, x->next is LIST_POISON1 (dead000000000100)"),
        ("debug-objects", "ODEBUG: free active (active state 0) object: x object type: timer_list"),
        ("page-table", "BUG: Bad page map in process sh  pte:8000 pmd:1234"),
        ("page-table", "BUG: Bad rss-counter state mm:x type:MM_ANONPAGES val:1"),
        ("page-table", "mm/pgtable-generic.c:54: bad pmd 00000000abcd(0000000012345678)"),
        ("bad-page", "BUG: Bad page state in process swapper  pfn:01234"),
        ("slab", "BUG kmalloc-64 (Tainted: G           O      ): Right Redzone overwritten"),
        ("slab", "BUG kmalloc-rnd-05-64 (Not tainted): Poison overwritten"),
        ("stack-overrun", "BUG: TASK stack guard page was hit at 0 (stack is 0..0)"),
        ("usercopy", "usercopy: Kernel memory exposure attempt detected from SLUB object 'x'"),
        ("fortify", "memcpy: detected buffer overflow: 16 byte write of buffer size 8"),
        ("lockdep-circular", "WARNING: possible circular locking dependency detected"),
        ("lockdep-recursive", "WARNING: possible recursive locking detected"),
        ("lockdep-irq", "WARNING: inconsistent lock state"),
        ("lockdep-irq", "WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected"),
        ("lockdep-irq", "WARNING: possible irq lock inversion dependency detected"),
        ("lockdep-held", "WARNING: lock held when returning to user space!"),
        ("lockdep-held", "BUG: workqueue leaked atomic, lock or RCU: kworker/0:1[9]"),
        ("lockdep-rcu", "WARNING: suspicious RCU usage"),
        ("lockdep-context", "[ BUG: Invalid wait context ]"),
        ("lockdep", "WARNING: bad unlock balance detected!"),
        ("lockdep", "INFO: trying to register non-static key."),
        ("atomic-sleep", "BUG: sleeping function called from invalid context at mm/slab.h:3"),
        ("atomic-schedule", "BUG: scheduling while atomic: sh/12/0x00000002"),
        ("preempt", "BUG: using smp_processor_id() in preemptible [00000000] code: sh/1"),
        ("spinlock", "BUG: spinlock bad magic on CPU#0, sh/12"),
        ("soft-lockup", "watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [sh:12]"),
        ("hard-lockup", "watchdog: Watchdog detected hard LOCKUP on cpu 1"),
        ("workqueue-lockup", "BUG: workqueue lockup - pool cpus=0 node=0 stuck for 31s!"),
        ("rcu-stall", "rcu: INFO: rcu_preempt self-detected stall on CPU"),
        ("rcu-stall", "rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: {"),
        ("hung-task", "INFO: task sh:12 blocked for more than 120 seconds."),
        ("netdev-leak", "unregister_netdevice: waiting for lo to become free. Usage count = 2"),
        ("kmemleak", "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"),
        ("irq", 'irq 16: nobody cared (try booting with the "irqpoll" option)'),
        ("double-fault", "double fault: 0000 [#1] SMP"),
        ("gpf", "general protection fault, probably for non-canonical address 0xdead: 0000 [#1]"),
        ("gpf", "Oops: general protection fault, probably for non-canonical address 0x1: 0000"),
        ("bug", "kernel BUG at mm/slub.c:448!"),
        ("oops", "BUG: kernel NULL pointer dereference, address: 0000000000000008"),
        ("oops", "BUG: unable to handle page fault for address: ffff888000000000"),
        ("oops", "divide error: 0000 [#1] SMP"),
        ("oops", "BUG: something that is not in any list"),
        ("panic", "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"),
        ("oom-panic", "Kernel panic - not syncing: System is deadlocked on memory"),
        ("warn", "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2"),
        ("warn", "WARNING: a.c:1 at f+0x1/0x2, CPU#0: modprobe/101"),
        ("oom", "sh invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0"),
        ("alloc-failure", "sh: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL)"),
    ],
)
def test_kind(kind: str, text: str) -> None:
    event = one(line(text))
    assert event.kind == kind
    assert event.title == text
    assert event.severity in ("splat", "fatal")


@pytest.mark.parametrize(
    "text",
    [
        "sh[12]: segfault at 0 ip 0000 sp 0000 error 4 in sh[400000+1000]",
        "traps: sh[12] general protection fault ip:47b7a0 sp:7ffe error:0 in busybox",
        "workqueue: neigh_managed_work hogged CPU for >10000us 4 times",
        "reboot: Power down",
    ],
)
def test_notes_fail_nobody(text: str) -> None:
    assert one(line(text)).severity == "note"


@pytest.mark.parametrize(
    "text",
    [
        "lkdtm: attempting corrupted list addition",
        "kmemleak: Automatic memory scanning thread started",
        "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
        "rcu: Hierarchical RCU implementation.",
        "tsc: WARNING: something in the middle",
        'audit: type=1400 apparmor="DENIED"',
        "sysrq: Show Blocked State",
    ],
)
def test_ordinary_lines_are_no_events(text: str) -> None:
    assert events(line(text)) == []


def test_lines_of_user_space_are_ignored() -> None:
    assert events("BUG: KASAN: my program says so\nWARNING: CPU: 0 me too\n") == []


def test_a_whole_report() -> None:
    event = one(WARNING)
    assert event.kind == "warn"
    assert event.line == 1
    assert event.time == 5.0
    assert event.stack == (
        "probe_me+0x12/0x30",
        "caller_one+0x10/0x20",
        "caller_two+0x10/0x20 [mod]",
    )
    assert len(event.lines) == 10


def test_message_before_the_warning_names_the_report() -> None:
    text = WARNING.replace(
        "[    5.000100]", "[    5.000050] refcount_t: saturated; leaking memory.\n[    5.000100]"
    )
    event = one(text)
    assert event.kind == "refcount"
    assert event.title == "refcount_t: saturated; leaking memory."


def test_lines_after_the_end_are_not_in_the_report() -> None:
    event = one(WARNING + "[    5.001000] something else\n")
    assert "something else" not in event.text


def test_two_reports_in_a_row_are_two() -> None:
    again = WARNING.replace("probe_me", "probe_you").replace("    5.0", "    6.0")
    first, second = events(WARNING + again)
    assert first.stack[0].startswith("probe_me")
    assert second.stack[0].startswith("probe_you")
    assert second.line == 11


def test_panic_after_an_oops_is_an_event_of_its_own() -> None:
    oops = WARNING.replace(
        "WARNING: CPU: 0 PID: 70 at net/core/dev.c:100 probe_me+0x12/0x30",
        "BUG: kernel NULL pointer dereference, address: 0000000000000000",
    )
    panic = "[    5.100000] Kernel panic - not syncing: Fatal exception in interrupt\n"
    assert [event.kind for event in events(oops + panic)] == ["oops", "panic"]


def test_the_end_of_a_panic_is_no_second_one() -> None:
    text = line("Kernel panic - not syncing: x") + "\n" + line("---[ end Kernel panic - not x ]---")
    assert one(text).kind == "panic"


def test_report_without_an_end_closes_after_silence() -> None:
    text = "[    1.0] BUG: scheduling while atomic: sh/12/0x2\n[    9.0] eth0: link up\n"
    assert "link up" not in one(text).text


def test_kasan_takes_the_stack_of_the_access_not_of_the_allocation() -> None:
    text = """\
[    2.0] ==================================================================
[    2.0] BUG: KASAN: slab-use-after-free in reader+0x5/0x10 [mod]
[    2.0] Read of size 8 at addr ffff888001234560 by task sh/77
[    2.0] Call Trace:
[    2.0]  <TASK>
[    2.0]  dump_stack_lvl+0x5d/0x80
[    2.0]  print_report+0x170/0x4c0
[    2.0]  kasan_report+0xc9/0x100
[    2.0]  reader+0x5/0x10 [mod]
[    2.0]  vfs_read+0x1/0x2
[    2.0]  </TASK>
[    2.0]
[    2.0] Allocated by task 77:
[    2.0]  maker+0x5/0x10 [mod]
[    2.0] Memory state around the buggy address:
[    2.0] ==================================================================
[    2.1] Disabling lock debugging due to kernel taint
"""
    splat, note = events(text)
    assert splat.kind == "kasan"
    assert splat.stack == ("reader+0x5/0x10 [mod]", "vfs_read+0x1/0x2")
    assert note.kind == "taint"


def test_a_function_that_an_interrupt_stopped_is_in_the_stack() -> None:
    text = """\
[    2.0] BUG: sleeping function called from invalid context at mm/slub.c:1
[    2.0] Call Trace:
[    2.0]  <IRQ>
[    2.0]  handler+0x1/0x10
[    2.0]  sysvec_apic_timer_interrupt+0x61/0x80
[    2.0]  </IRQ>
[    2.0]  <TASK>
[    2.0]  asm_sysvec_apic_timer_interrupt+0x16/0x20
[    2.0] RIP: 0010:spinner+0x3/0x20 [mod]
[    2.0] Code: 48 c7
[    2.0] RSP: 0018:ffffc900005e7cc0 EFLAGS: 00000002
[    2.0]  caller+0x9/0x20
[    2.0] RIP: 0033:0x7f9e2a91d4fd
[    2.0]  </TASK>
"""
    assert one(text).stack == ("handler+0x1/0x10", "spinner+0x3/0x20 [mod]", "caller+0x9/0x20")


def test_fingerprint_knows_places_not_addresses() -> None:
    moved = WARNING.replace("+0x12/0x30", "+0x99/0x120").replace("5.000", "7.000")
    elsewhere = WARNING.replace("caller_one", "caller_three")
    assert one(WARNING).fingerprint == one(moved).fingerprint
    assert one(WARNING).fingerprint != one(elsewhere).fingerprint


def test_fingerprint_without_a_stack_ignores_numbers() -> None:
    first = one(line("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [sh:12]"))
    second = one(line("watchdog: BUG: soft lockup - CPU#0 stuck for 48s! [sh:99]"))
    assert first.fingerprint == second.fingerprint


def test_caller_prefix_colours_and_carriage_returns() -> None:
    text = "\x1b[2J<4>[    1.000000][   T12] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\r"
    assert one(text).title == "WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2"


def test_endless_report_is_bounded() -> None:
    text = line("BUG: scheduling while atomic: x") + "\n" + (line(" more") + "\n") * 10_000
    found = events(text)
    assert len(found) == 1
    assert len(found[0].lines) < 1000


def test_events_come_as_soon_as_their_report_ends() -> None:
    parser = Parser(POLICY)
    lines = WARNING.splitlines()
    assert [event for text in lines[:-1] for event in parser.feed(text)] == []
    assert parser.open
    assert len(parser.feed(lines[-1])) == 1
    assert not parser.open
