# SPDX-License-Identifier: GPL-2.0-only
"""Runs the kernel's selftests, a pristine machine each: what `lab kselftest` calls."""

import io
import tarfile
from collections.abc import Callable

import pytest

from lab.kernel.kselftest import Selftests, load_selftests
from lab.results.ktap import Ktap, complaints, differences, parse, reasons
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
        runs = 2 if metafunc.config.getoption("--kselftest-compare") else 1
        mark = pytest.mark.limit(runs * (limit + SLACK))
        parameters.append(pytest.param(program, limit, id=program, marks=mark))
    metafunc.parametrize(("program", "limit"), parameters)


SHAPE = {"memory": 768, "cpus": 2}

#: What --before may leave, to say whether it was at work until the end.
AFTER = "[ ! -e /run/after ] || /run/after"


def test_program(
    start: Callable[..., Machine],
    kernel: KernelInfo,
    request: pytest.FixtureRequest,
    program: str,
    limit: float,
) -> None:
    found = selftests(request.config)
    assert found
    before = request.config.getoption("--kselftest-before")
    seconds = limit * kernel.patience

    def results(name: str, before: str, **shape: object) -> Ktap:
        machine = start(name, **SHAPE, **shape)
        unpack(found, machine)
        if before:
            machine.succeed(before)
        text = output(machine, found.command(program, seconds), limit)
        print(text)
        machine.succeed(AFTER)
        machine.stop()
        return parse(text)

    ktap = results("machine", before)
    if request.config.getoption("--kselftest-compare"):
        # Nothing of ours is loaded there.
        others = differences(results("without", "", prepare=()), ktap)
        assert not others, "without, with:\n" + "\n".join(others)
    elif ktap.status != "skipped":
        assert ktap.status == "passed", "\n".join(complaints(ktap))
    if ktap.status == "skipped":
        pytest.skip("; ".join(reasons(ktap)))


def unpack(found: Selftests, machine: Machine) -> None:
    machine.copy_to(packed(found), "/tmp/kselftest.tar")
    machine.succeed("mkdir /opt/kselftest && tar -xf /tmp/kselftest.tar -C /opt/kselftest")


#: Some programs do nothing where the kernel is tainted, as it is by any module
#: from outside. Whether it has come to grief the lab sees, outside of this.
UNTAINTED = (
    "echo 0 >/run/untainted && exec unshare -m sh -c "
    "'mount --bind /run/untainted /proc/sys/kernel/tainted && cd /opt/kselftest && {}'"
)


def output(machine: Machine, command: str, limit: float) -> str:
    return machine.execute(UNTAINTED.format(f"{command} 2>&1"), timeout=limit + SLACK / 2).stdout


def packed(found: Selftests) -> bytes:
    """The installed tree as a tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(found.path, arcname=".")
    return buffer.getvalue()
