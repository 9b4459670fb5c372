# SPDX-License-Identifier: GPL-2.0-only
"""A vmcore on demand, opened by drgn."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

pytestmark = [pytest.mark.fresh, pytest.mark.limit(120)]


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Path]:
    """Where the dump goes; nobody wants it afterwards."""
    file = tmp_path / "vmcore"
    yield file
    file.unlink(missing_ok=True)


def opened(core: Path, kernel: KernelInfo) -> Any:
    """The dump as drgn's program, with the kernel's symbols."""
    import drgn

    program = drgn.Program()
    program.set_core_dump(str(core))
    program.load_debug_info([str(kernel.vmlinux)])
    return program


def test_a_live_machine(machine: Machine, kernel: KernelInfo, core: Path) -> None:
    from drgn.helpers.linux.pid import find_task

    machine.succeed("sleep 1000 </dev/null >/dev/null 2>&1 & echo $! >/run/pid")
    pid = int(machine.succeed("cat /run/pid"))
    program = opened(machine.dump(core), kernel)
    assert program["init_uts_ns"].name.nodename.string_() == b"machine"
    assert program["init_uts_ns"].name.release.string_().decode() == kernel.version
    assert find_task(program, pid).comm.string_() == b"sleep"
    # The guest has not noticed.
    machine.succeed("true")


def test_a_panicked_machine(machine: Machine, kernel: KernelInfo, core: Path) -> None:
    machine.crash()
    program = opened(machine.dump(core), kernel)
    names = [frame.name for frame in program.crashed_thread().stack_trace()]
    assert "sysrq_handle_crash" in names, names
