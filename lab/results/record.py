# SPDX-License-Identifier: GPL-2.0-only
"""What a run leaves behind, as it stands in results.json and run.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from lab.errors import LabError

Status = Literal["passed", "failed", "skipped", "kernel", "infra"]

#: The worst status of a test's phases is the test's.
RANK: dict[Status, int] = {"passed": 0, "skipped": 1, "failed": 2, "infra": 3, "kernel": 4}

EXIT: dict[Status, int] = {"passed": 0, "skipped": 0, "failed": 1, "kernel": 1, "infra": 4}


class Record(BaseModel):
    """Frozen, and strict about unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Splat(Record):
    """A report of a kernel, with who is to blame.

    `when` is in seconds since the test began, `time` in seconds of the guest's
    clock; `line` counts from 1 in the node's console.log.
    """

    node: str
    phase: str
    when: float
    time: float
    kind: str
    severity: str
    title: str
    fingerprint: str
    stack: tuple[str, ...] = ()
    text: str = ""
    line: int = 0
    expected: bool = False
    noise: str | None = None


class Mark(Record):
    """A moment of a test: seconds since it began, the node (or ""), what happened."""

    when: float
    node: str = ""
    what: str


class Node(Record):
    """A machine that a test used.

    Attributes:
        directory: relative to the cell's.
        kernel: key of its kernel; not always the cell's, see `Peer`.
    """

    name: str
    directory: str
    kernel: str = ""
    cloned: bool = False
    memory: int = 0
    cpus: int = 1


class TestResult(Record):
    """One test in one cell; durations in seconds."""

    __test__ = False  # not a test class, whatever pytest makes of the name

    id: str
    status: Status
    exit: int
    duration: float
    setup: float = 0.0
    call: float = 0.0
    teardown: float = 0.0
    message: str = ""
    detail: str = ""
    file: str = ""
    line: int = 0
    splats: tuple[Splat, ...] = ()
    marks: tuple[Mark, ...] = ()
    nodes: tuple[Node, ...] = ()
    topology: dict[str, object] | None = None
    bundle: str | None = None

    @property
    def subsystem(self) -> str:
        """The folder of tests/e2e that the test stands in."""
        parts = Path(self.id.partition("::")[0]).parts
        if "e2e" in parts and parts.index("e2e") + 2 < len(parts):
            return parts[parts.index("e2e") + 1]
        return parts[-2] if len(parts) > 1 else ""


class Patch(Record):
    """A patch that the kernel was built with."""

    name: str
    sha256: str


class KernelFacts(Record):
    """The kernel under test; `compiler` as it says itself what it is."""

    name: str
    version: str
    flavour: str
    key: str
    compiler: str = ""
    patches: tuple[Patch, ...] = ()


class HostFacts(Record):
    """The machine that the lab ran on; memory in MiB."""

    system: str
    python: str
    qemu: str
    cpus: int
    memory: int


class CellResult(Record):
    """Everything that one cell found out; times as seconds since 1970."""

    name: str
    kernel: KernelFacts
    modules_key: str | None
    modules: dict[str, str]
    image_key: str
    provider: str
    accel: str
    workers: int
    shared: bool = False
    host: HostFacts
    started: float
    seconds: float
    exit: int
    message: str = ""
    tests: tuple[TestResult, ...] = ()


class Untested(Record):
    """A kernel and flavour that could not be built, or a cell that could not begin."""

    name: str
    exit: int
    message: str

    @classmethod
    def of(cls, name: str, error: LabError) -> Untested:
        """What an error kept from being tested."""
        return cls(name=name, exit=error.exit_status, message=str(error))


class RunResult(Record):
    """A whole run: its cells, what has no results, and the exit status of it all."""

    run: str
    command: tuple[str, ...]
    started: float
    seconds: float
    exit: int
    cells: tuple[CellResult, ...]
    untested: tuple[Untested, ...] = ()

    @property
    def tests(self) -> tuple[TestResult, ...]:
        """The tests of every cell."""
        return tuple(test for cell in self.cells for test in cell.tests)


def count(tests: Iterable[TestResult]) -> dict[Status, int]:
    """How many tests have each status; every status is there."""
    counts: dict[Status, int] = dict.fromkeys(RANK, 0)
    for test in tests:
        counts[test.status] += 1
    return counts


def exit_status(tests: Iterable[TestResult]) -> int:
    """The exit status of a set of tests; none at all, or all skipped, is wrong use."""
    known = tuple(tests)
    if all(test.status == "skipped" for test in known):
        return 2
    return max(test.exit for test in known)


def summary(tests: Iterable[TestResult], *, seconds: float) -> str:
    """The line at the end: "2 passed, 1 kernel in 3.2s"."""
    counts = count(tests)
    order: tuple[Status, ...] = ("failed", "kernel", "infra", "passed", "skipped")
    parts = [f"{counts[status]} {status}" for status in order if counts[status]]
    return f"{', '.join(parts) or 'no tests'} in {seconds:.2f}s"
