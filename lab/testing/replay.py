# SPDX-License-Identifier: GPL-2.0-only
"""A test run again for a person: a shell at its end, gdb at its machines' start."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lab.errors import UserError
from lab.vm import terminal
from lab.vm.machine import Machine
from lab.vm.qemu import Qemu
from lab.vm.runtime import runtime
from lab.vm.spec import MachineSpec

#: While a person looks, nothing else is in a hurry.
_NO_HURRY = 10_000.0


def options(*, shell: bool, gdb: bool) -> tuple[str, ...]:
    """The words that pytest needs for it.

    Errors:
        UserError: a shell is wanted where there is no terminal.
    """
    if shell and not sys.stdin.isatty():
        raise UserError("a shell needs a terminal", right="lab replay BUNDLE without --shell")
    words = ["-s"] if shell or gdb else []
    return tuple(words + ["--lab-shell"] * shell + ["--lab-gdb"] * gdb)


def is_patient(config: pytest.Config) -> bool:
    """Whether a person looks, so that no time limit holds."""
    return bool(config.getoption("--lab-shell") or config.getoption("--lab-gdb"))


def stopped(spec: MachineSpec, *, vmlinux: Path) -> MachineSpec:
    """The same machine, but it starts stopped and waits for gdb; says how to attach."""
    socket = runtime().directory() / "gdb"
    command = ["gdb", str(vmlinux), "-ex", f"target remote {socket}"]
    print(
        f"\n{spec.name} is stopped before its first instruction. In another terminal:\n"
        f"  {shlex.join(command)}\nthen `continue`.",
        file=sys.stderr,
    )
    # Breakpoints by address want the kernel where vmlinux says.
    return replace(
        spec, gdb=socket, patience=spec.patience * _NO_HURRY, cmdline=(*spec.cmdline, "nokaslr")
    )


def shells(machines: tuple[Machine, ...]) -> None:
    """A shell on each machine that still runs, one after the other."""
    for machine in machines:
        body = machine.body
        if isinstance(body, Qemu) and body.alive():
            print(f"\n{machine.name}: a shell before it is ended.", file=sys.stderr)
            terminal.converse(machine, body.places.terminal)
