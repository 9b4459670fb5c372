# SPDX-License-Identifier: GPL-2.0-only
"""Runs the kernel's selftests, a pristine machine each: what `lab kselftest` calls."""

import io
import tarfile

import pytest

from lab.kernel.kselftest import Selftests, load_selftests
from lab.results.ktap import complaints, parse, reasons
from lab.store import Store
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

#: Seconds on top of a program's own limit: unpacking, and the end of its children.
SLACK = 60.0

#: Seconds for a program that the kernel gives no limit.
LONG = 3600.0


def selftests(config: pytest.Config) -> Selftests | None:
    key = config.getoption("--kselftest")
    if not key:
        return None
    found = Store().find("kselftest", key)
    assert found, f"the selftests {key} are not in the store"
    return load_selftests(key, found.path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each program, with the time that the kernel gives it."""
    found = selftests(metafunc.config)
    given = metafunc.config.getoption("--kselftest-limit")
    parameters = []
    for program in found.programs if found else ():
        assert found
        limit = float(given) if given else found.limit(program) or LONG
        mark = pytest.mark.limit(limit + SLACK)
        parameters.append(pytest.param(program, limit, id=program, marks=mark))
    metafunc.parametrize(("program", "limit"), parameters)


@pytest.mark.machine(memory=768, cpus=2)
def test_program(
    machine: Machine, kernel: KernelInfo, request: pytest.FixtureRequest, program: str, limit: float
) -> None:
    found = selftests(request.config)
    assert found
    machine.copy_to(packed(found), "/tmp/kselftest.tar")
    machine.succeed("mkdir /opt/kselftest && tar -xf /tmp/kselftest.tar -C /opt/kselftest")
    before = request.config.getoption("--kselftest-before")
    if before:
        machine.succeed(before)
    seconds = round(limit * kernel.patience)
    done = machine.execute(
        f"cd /opt/kselftest && ./run_kselftest.sh -o {seconds} -t {program} 2>&1",
        timeout=limit + SLACK / 2,
    )
    print(done.stdout)
    ktap = parse(done.stdout)
    if ktap.status == "skipped":
        pytest.skip("; ".join(reasons(ktap)))
    assert ktap.status == "passed", "\n".join(complaints(ktap))


def packed(found: Selftests) -> bytes:
    """The installed tree as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(found.path, arcname=".")
    return buffer.getvalue()
