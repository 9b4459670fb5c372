# SPDX-License-Identifier: GPL-2.0-only
"""Runs the kernel's KUnit tests, a pristine machine for each module: what `lab kunit` calls."""

from pathlib import Path

import pytest

from lab.kernel.artifact import load_kernel
from lab.kernel.kunit import suite_modules
from lab.results.ktap import complaints, parse, reasons
from lab.store import Store
from lab.testing.cell import load_cell
from lab.vm.machine import Machine

#: Seconds for all suites of a module; kunit.py gives a whole boot 300.
LIMIT = 300.0


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each module that the cell's kernel has."""
    pattern = metafunc.config.getoption("--kunit")
    names: tuple[str, ...] = ()
    if pattern:
        cell = load_cell(Path(metafunc.config.getoption("--lab-cell")))
        found = Store().find("kernel", cell.kernel)
        assert found, f"the kernel {cell.kernel} is not in the store"
        names = suite_modules(load_kernel(key=found.key, path=found.path), pattern)
    metafunc.parametrize("name", names)


@pytest.mark.limit(LIMIT)
def test_module(machine: Machine, name: str) -> None:
    # Suites run while their module is loaded, and print to the log alone.
    machine.succeed("modprobe kunit", "dmesg --clear")
    done = machine.execute(f"modprobe {name}", timeout=LIMIT * 0.8)
    text = machine.succeed("dmesg")
    print(text)
    assert done.status == 0, f"modprobe {name}: {done.stderr or done.stdout}"
    ktap = parse(text)
    if ktap.status == "skipped":
        pytest.skip("; ".join(reasons(ktap)))
    assert ktap.status == "passed", "\n".join(complaints(ktap))
