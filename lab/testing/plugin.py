# SPDX-License-Identifier: GPL-2.0-only
"""The pytest plugin: a pristine machine for every test, and blame that is right.

Active with --lab-cell only. Every test gets a Trial; when a phase of it ends
the kernels are asked for their health and the verdict is put into the report,
which xdist carries to the controller.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from lab.errors import LabError, UserError
from lab.progress import note
from lab.results.record import Mark, TestResult
from lab.store import Store
from lab.testing import replay
from lab.testing.cell import Cell, load_cell
from lab.testing.fixtures import *  # noqa: F403 - pytest finds fixtures by name
from lab.testing.frames import authors_frames, failing_line
from lab.testing.host import HostWatch
from lab.testing.lease import Leases, ledger_of
from lab.testing.limit import Limit
from lab.testing.orphan import end_if_orphaned
from lab.testing.rig import Rig
from lab.testing.shared import SharedMachine, may_share
from lab.testing.trial import Trial, directory_name
from lab.testing.verdict import KernelFailed, Verdict, agreed
from lab.watch.follow import Watch
from lab.watch.policy import load_policy

TRIAL = pytest.StashKey[Trial]()
BENCH: pytest.StashKey[Bench] = pytest.StashKey()
TIMES = pytest.StashKey[dict[str, float]]()
LINE = pytest.StashKey[int]()

#: Seconds that a test may take, for a patience of 1.
TEST_LIMIT = 60.0

#: Seconds in which no command can have been run on a guest.
_NOTHING = 0.01

MARKERS = (
    "splat(pattern): the kernel must report something that matches; it then is no failure",
    "machine(**shape): what the test's machine is like: memory=, cpus=, cmdline=, cold=True, ...",
    "limit(seconds): how long the test may take (60, times the flavour's patience)",
    "topology(name, bridge=False): the network of the `net` fixture: pair, router, lan or a file",
    "amount(full, few=N): what the `amount` fixture gives; few in CI and under slow flavours, "
    "in_ci=N in CI only",
    "slow: takes more than ten seconds",
    "fresh: needs a machine of its own even where the others share one",
)


class Bench:
    """What the tests of one pytest process share."""

    def __init__(self, *, cell: Cell, directory: Path) -> None:
        self.cell = cell
        self.directory = directory
        store = Store()
        self.rig = Rig(cell, store)
        self.provider = self.rig.provider()
        self.cold = self.rig.provider(cold=True)
        # Who waits says so to people, while pytest holds back what tests say.
        self.stderr = os.fdopen(os.dup(2), "w")
        self.leases = Leases(ledger_of(store), say=functools.partial(note, stream=self.stderr))
        self.host = HostWatch()
        self.host.start()
        self.shared = SharedMachine(self) if cell.shared else None

    def watch(self) -> Watch:
        """Eyes for one test."""
        return Watch(
            kernel=self.rig.kernel.version, flavour=self.cell.flavour, policy=load_policy()
        )

    def trial(self, item: pytest.Item) -> Trial:
        """Everything that one test needs."""
        return Trial(
            test=item.nodeid,
            directory=self.directory / "nodes" / directory_name(item.nodeid),
            provider=self.provider,
            watch=self.watch(),
            leases=self.leases,
            host=self.host,
            expected=[pattern for pattern in _splats(item) if _flaw(pattern) is None],
            kernel_of=self.rig.kernel_of,
            holder=self.shared.holder if self.shared else None,
        )

    def report(self, result: TestResult) -> None:
        """Put a result beside those of the tests, as `Collector` does."""
        with (self.directory / "tests.jsonl").open("a", encoding="utf-8") as file:
            file.write(result.model_dump_json() + "\n")

    def close(self) -> None:
        """End every machine."""
        if self.shared is not None:
            self.shared.close()
        self.provider.close()
        self.cold.close()
        self.host.stop()
        self.stderr.close()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("lab").addoption(
        "--lab-cell", metavar="CELL.json", help="the cell whose machines the tests get"
    )
    group = parser.getgroup("lab")
    group.addoption("--lab-shell", action="store_true", help="a shell before machines are ended")
    group.addoption("--kselftest", metavar="KEY", help="selftests of the store to run")
    group.addoption("--kselftest-before", metavar="COMMAND", default="", help="in each guest")
    group.addoption("--kselftest-compare", action="store_true", help="with it and without")
    group.addoption("--kunit", metavar="GLOB", help="KUnit modules of the kernel to run")
    group.addoption("--kselftest-limit", metavar="SECONDS", help="for each program")
    group.addoption("--lab-gdb", action="store_true", help="machines start stopped, for gdb")


def pytest_configure(config: pytest.Config) -> None:
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    path = config.getoption("--lab-cell")
    if path is None:
        return
    end_if_orphaned()
    # The lab ends us by it, also where a shell's `&` had it ignored for good.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # It logs each end of a connection as an error; our messages say why.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL + 1)
    cell = load_cell(Path(path))
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(cell, Path(path).parent), "lab-collector")
    if not _is_controller(config):
        config.stash[BENCH] = Bench(cell=cell, directory=Path(path).resolve().parent)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A shared machine's last duty: what it has leaked, and said to nobody."""
    bench = session.config.stash.get(BENCH, None)
    if bench is None or bench.shared is None:
        return
    # Whoever interrupts does not wait for kmemleak.
    if exitstatus != pytest.ExitCode.INTERRUPTED:
        bench.shared.finish()


def pytest_unconfigure(config: pytest.Config) -> None:
    bench = config.stash.get(BENCH, None)
    if bench is not None:
        bench.close()


def _is_controller(config: pytest.Config) -> bool:
    """True in the process that only hands tests out to others."""
    return not hasattr(config, "workerinput") and bool(config.getoption("tx", None))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """This cell's tests, the longest first: one that starts last keeps everybody waiting."""
    path = config.getoption("--lab-cell")
    if path is None:
        return
    cell = load_cell(Path(path))
    mine = [item for number, item in enumerate(items) if number % cell.shards == cell.shard - 1]
    if cell.shared:
        # The others have been run in machines of their own already.
        mine = [item for item in mine if may_share(item)]
    others = [item for item in items if item not in set(mine)]
    if others:
        config.hook.pytest_deselected(items=others)
    items[:] = sorted(mine, key=lambda item: -cell.times.get(item.nodeid, 0.0))


# One test


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    bench = item.config.stash.get(BENCH, None)
    if bench is None:
        return (yield)
    item.stash[TIMES] = {}
    item.stash[LINE] = _first_line(item)
    trial = item.stash[TRIAL] = bench.trial(item)
    return (yield from _phase(item, trial, "setup", last=False))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    trial = item.stash.get(TRIAL, None)
    if trial is None:
        return (yield)
    return (yield from _phase(item, trial, "test", last=True))


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    trial = item.stash.get(TRIAL, None)
    if trial is None:
        return (yield)
    try:
        return (yield from _phase(item, trial, "teardown", last=False))
    finally:
        trial.close()


def _phase(
    item: pytest.Item, trial: Trial, name: str, *, last: bool
) -> Generator[None, object, object]:
    """Run a phase within its limit; turn what the kernels did into its outcome."""
    trial.enter(name)
    began = time.monotonic()
    result: object = None
    error: BaseException | None = None
    limit = trial.limit = _limit(item, trial)
    try:
        if name == "setup":
            _refuse_flaws(item)
        with limit:
            result = yield
    except (KeyboardInterrupt, pytest.exit.Exception):
        raise
    except BaseException as raised:
        error = raised
        item.stash[LINE] = failing_line(error.__traceback__, item.path) or item.stash[LINE]
    # A teardown that took no time did nothing to a guest; a fresh clone is well.
    busy = name == "test" or (name == "teardown" and time.monotonic() - began > _NOTHING)
    verdict = trial.settle(error, last=last, ask=busy)
    if name == "test" and item.config.getoption("--lab-shell"):
        replay.shells(trial.machines)
    _raise(trial, verdict, error)
    return result


def _splats(item: pytest.Item) -> list[str]:
    """The patterns of a test's `splat` marks."""
    return [str(mark.args[0]) for mark in item.iter_markers("splat") if mark.args]


def _flaw(pattern: str) -> str | None:
    """Why this is no regular expression; None where it is one."""
    try:
        re.compile(pattern)
    except re.error as error:
        return str(error)
    return None


def _refuse_flaws(item: pytest.Item) -> None:
    for pattern in _splats(item):
        flaw = _flaw(pattern)
        if flaw is not None:
            raise UserError(
                f"the mark splat({pattern!r}) is no regular expression: {flaw}",
                file=item.location[0],
                line=item.stash[LINE],
            )


def _first_line(item: pytest.Item) -> int:
    """Where a test begins: pytest says where the first of its decorators does."""
    first = (item.location[1] or 0) + 1
    if not isinstance(item, pytest.Function):
        return first
    lines = inspect.getsourcelines(item.function)[0]
    return first + next(i for i, text in enumerate(lines) if text.lstrip().startswith("def "))


def _raise(trial: Trial, verdict: Verdict, error: BaseException | None) -> None:
    trace = authors_frames(error.__traceback__) if error is not None else None
    if verdict.status == "kernel":
        # Where in the test it happened is told by the wait that it cut short.
        text = "\n".join([verdict.message, *trial.last_report])
        failure = KernelFailed(text, pytrace=error is not None)
        raise failure.with_traceback(trace) from None
    if error is not None:
        raise error.with_traceback(trace)
    if verdict.status == "failed":
        pytest.fail(verdict.message, pytrace=False)
    if verdict.status == "infra":
        raise LabError(verdict.message)


def _limit(item: pytest.Item, trial: Trial) -> Limit:
    mark = item.get_closest_marker("limit")
    seconds = float(mark.args[0]) if mark and mark.args else TEST_LIMIT
    patience = item.config.stash[BENCH].rig.patience
    if replay.is_patient(item.config):
        seconds = threading.TIMEOUT_MAX / patience / 2
    return Limit(seconds * patience, lambda: _expired(trial))


def _expired(trial: Trial) -> None:
    trial.mark("over its limit")
    trial.end_machines("the test's limit has passed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    trial = item.stash.get(TRIAL, None)
    report = yield
    if trial is None:
        return report
    item.stash[TIMES][call.when] = call.duration
    trial.verdict = agreed(trial.verdict, report, call.excinfo)
    # Extra attributes of a report survive xdist as long as they are JSON.
    setattr(report, "lab_status", trial.verdict.status if report.failed else "")  # noqa: B010
    if call.when == "teardown":
        bench = item.config.stash[BENCH]
        result = _result(item, trial, bench.directory)
        setattr(report, "lab_result", result.model_dump(mode="json"))  # noqa: B010
    return report


def _result(item: pytest.Item, trial: Trial, base: Path) -> TestResult:
    times = item.stash[TIMES]
    return TestResult(
        id=item.nodeid,
        status=trial.verdict.status,
        exit=trial.verdict.exit,
        duration=round(sum(times.values()), 3),
        setup=round(times.get("setup", 0.0), 3),
        call=round(times.get("call", 0.0), 3),
        teardown=round(times.get("teardown", 0.0), 3),
        message=trial.verdict.message,
        file=item.location[0],
        line=item.stash[LINE],
        splats=trial.splats(),
        marks=tuple(trial.marks),
        nodes=trial.nodes(base),
        topology=trial.topology,
    )


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """A kernel's failure looks like one; the lab's own is an error."""
    status = getattr(report, "lab_status", "")
    if status == "kernel":
        return "failed", "K", "KERNEL"
    if status == "infra":
        return "error", "I", "INFRA"
    return None


class Collector:
    """Where reports arrive (the controller, with xdist): writes tests.jsonl.

    One line a test, as soon as it is known: what a dead pytest leaves is still
    worth reading.
    """

    def __init__(self, cell: Cell, directory: Path) -> None:
        self._cell = cell
        self._path = directory / "tests.jsonl"
        self._details: dict[str, list[str]] = {}
        self._known: set[str] = set()

    def pytest_sessionstart(self) -> None:
        self._path.write_text("", encoding="utf-8")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed or report.skipped:
            self._details.setdefault(report.nodeid, []).append(_detail(report))
        result = getattr(report, "lab_result", None)
        if result is not None:
            self._write({**result, "detail": self._detail_of(report.nodeid)})
        elif report.when not in ("setup", "call", "teardown"):
            self._write(_lost(report))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._write(
                TestResult(
                    id=report.nodeid, status="failed", exit=1, duration=0.0,
                    message="the tests could not be collected", detail=report.longreprtext,
                    file=report.nodeid.partition("::")[0],
                ).model_dump(mode="json")
            )  # fmt: skip

    def _detail_of(self, test: str) -> str:
        return "\n\n".join(text for text in self._details.pop(test, []) if text)

    def _write(self, result: dict[str, object]) -> None:
        test = str(result["id"])
        if test in self._known:
            return
        self._known.add(test)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


def _detail(report: pytest.TestReport) -> str:
    parts = [f"in {report.when}:", report.longreprtext]
    parts += [f"--- {title}\n{text}" for title, text in report.sections]
    return "\n".join(parts)


def _lost(report: pytest.TestReport) -> dict[str, object]:
    """xdist's report of a test whose worker died."""
    return TestResult(
        id=report.nodeid, status="infra", exit=4, duration=0.0,
        message="the process that ran the test died", detail=report.longreprtext,
        marks=(Mark(when=0.0, what=f"lost at {time.strftime('%H:%M:%S')}"),),
    ).model_dump(mode="json")  # fmt: skip
