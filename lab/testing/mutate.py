# SPDX-License-Identifier: GPL-2.0-only
"""python -m lab.testing.mutate [NAME...]: do the tests notice broken code?

tests/mutations/*.patch are small faults, each with a header that says what it
breaks and who must notice:

    Killed-by: tests/unit/test_store.py::test_made_once

A line `Flavour: debug` says that only this flavour's kernel can notice; its
tests are those of tests/e2e.

Each is applied to a copy of the checkout, and the test named must fail there,
having passed in the copy as it was.  Exit status 1 if a mutation survives.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from lab import status
from lab.errors import LabError, UserError
from lab.manifest import ROOT
from lab.process import Finished, ProgramTimeout, run
from lab.progress import progress
from lab.results.merge import load_run

TIME_LIMIT = 900.0
"""Seconds for one test; a mutation that makes it hang is not killed by it."""

KILLER = re.compile(r"^Killed-by: *(\S.*?) *$", re.MULTILINE)
FLAVOUR = re.compile(r"^Flavour: *(\S+) *$", re.MULTILINE)

LAB = (sys.executable, "-m", "lab")


@dataclass(frozen=True)
class Killer:
    """A test, and the flavour of kernel that it wants if not the usual one."""

    test: str
    flavour: str | None = None

    @property
    def end_to_end(self) -> bool:
        """Whether it needs machines."""
        return self.test.startswith("tests/e2e/")

    def __str__(self) -> str:
        return f"{self.test} ({self.flavour})" if self.flavour else self.test


@dataclass(frozen=True)
class Mutation:
    """A fault, and the tests of which each must notice it."""

    file: Path
    killers: tuple[Killer, ...]

    @property
    def name(self) -> str:
        """The patch's name without its suffix."""
        return self.file.stem


def mutations(directory: Path, names: list[str]) -> list[Mutation]:
    """All of them, or those that are named.

    Raises:
        UserError: there is none of that name, one names no test, or a flavour
            for a test that has no kernel.
    """
    found = {}
    for file in sorted(directory.glob("*.patch")):
        header = file.read_text().split("\n--- ", 1)[0]
        wanted = FLAVOUR.search(header)
        flavour = wanted.group(1) if wanted else None
        killers = tuple(Killer(test, flavour) for test in KILLER.findall(header))
        if not killers:
            raise UserError("this mutation names no test", file=file, right="Killed-by: TEST")
        if flavour and not all(killer.end_to_end for killer in killers):
            raise UserError("this test has no kernel", file=file, right="no line `Flavour:`")
        found[file.stem] = Mutation(file, killers)
    for name in names:
        if name not in found:
            raise UserError(f"there is no mutation `{name}`", right=f"see {directory}")
    return [mutation for name, mutation in found.items() if not names or name in names]


def survivors(chosen: list[Mutation], root: Path) -> list[str]:
    """What was not noticed, one line each.

    Raises:
        UserError: a patch does not apply, or its test fails without it.
    """
    lines = []
    with tempfile.TemporaryDirectory(prefix="lab-mutate-") as directory:
        copy = Path(directory, "checkout")
        copy_checkout(root, copy)
        for flavour in sorted({k.flavour for each in chosen for k in each.killers if k.flavour}):
            # Not within the time limit of a test.
            run([*LAB, "kernel", "build", "--flavour", flavour], cwd=copy, env=_environment(copy))
        _see_them_pass(chosen, copy)
        for mutation in chosen:
            with progress(f"mutation {mutation.name}"):
                lines += _survived(mutation, copy)
    return lines


def _see_them_pass(chosen: list[Mutation], copy: Path) -> None:
    """All killers must pass in the copy as it was.

    Those with a kernel in one run for each flavour: a run of its own for each
    test took longer than the mutations.
    """
    wanted = {killer: mutation.file for mutation in chosen for killer in mutation.killers}
    passed: set[Killer] = set()
    for flavour in dict.fromkeys(killer.flavour for killer in wanted):
        group = [k for k in wanted if k.end_to_end and k.flavour == flavour]
        if group:
            with progress(f"{len(group)} tests without mutations, {flavour or 'default'} flavour"):
                passed |= _passing(copy, group)
    for killer, file in wanted.items():
        if killer.end_to_end:
            good = killer in passed
        else:
            finished = _run_test(copy, killer)
            good = finished is not None and finished.status == 0
        if not good:
            raise UserError(f"{killer} does not pass without the mutation", file=file)


def _passing(copy: Path, group: list[Killer]) -> set[Killer]:
    """Which of the killers of one flavour pass in the copy."""
    if _run_test(copy, *group) is None:
        return set()
    tests = load_run(copy / "results" / "latest" / "run.json").tests

    def passes(killer: Killer) -> bool:
        mine = [t for t in tests if t.id == killer.test or t.id.startswith(f"{killer.test}[")]
        return bool(mine) and all(test.status == "passed" for test in mine)

    return {killer for killer in group if passes(killer)}


def _survived(mutation: Mutation, copy: Path) -> list[str]:
    _patch(mutation, copy)
    try:
        return [
            f"{mutation.name} survives {killer}"
            for killer in mutation.killers
            if not fails(copy, killer)
        ]
    finally:
        _patch(mutation, copy, "--reverse")


def copy_checkout(root: Path, copy: Path) -> None:
    """The files that git knows or would, as they are now."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for name in run(argv, cwd=root).stdout.split("\0"):
        if name and (root / name).exists():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, copy / name, follow_symlinks=False)


def fails(copy: Path, killer: Killer) -> bool:
    """Whether a test fails in the copy.

    Not whether it cannot be run or hangs, nor whether it never began: a splat
    while its machine was being made says nothing of what it looks for.
    """
    finished = _run_test(copy, killer)
    if finished is None or finished.status != 1:
        return False
    if not killer.end_to_end:
        return re.search(r"\b[1-9]\d* failed\b", finished.stdout) is not None
    tests = load_run(copy / "results" / "latest" / "run.json").tests
    return any(test.status in ("failed", "kernel") and test.call > 0 for test in tests)


def _run_test(copy: Path, *killers: Killer) -> Finished | None:
    """Run tests of one flavour, or one that has no kernel; None if they took too long."""
    tests = [killer.test for killer in killers]
    if killers[0].end_to_end:
        flavour = killers[0].flavour
        argv = [*LAB, "test", *(("--flavour", flavour, "--no-shared") if flavour else ()), *tests]
    else:
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
    limit = TIME_LIMIT * len(killers)
    try:
        return run(argv, cwd=copy, env=_environment(copy), timeout=limit, check=False)
    except ProgramTimeout:
        return None


def _environment(copy: Path) -> dict[str, str]:
    # No bytecode: a patch applied within the second would not be noticed.
    return {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}


def _patch(mutation: Mutation, copy: Path, *options: str) -> None:
    argv = ["patch", "-p1", "--fuzz=0", "--silent", "--no-backup-if-mismatch", *options]
    done = run(argv, cwd=copy, input=mutation.file.read_bytes(), check=False)
    if done.status != 0:
        raise UserError(
            f"the mutation does not apply: {(done.stdout + done.stderr).strip()}",
            file=mutation.file,
            right="refresh it",
        )


def main(names: list[str], root: Path = ROOT) -> int:
    """Run them; the exit status."""
    try:
        chosen = mutations(root / "tests" / "mutations", names)
        if not chosen:
            raise UserError("there are no mutations", file=root / "tests" / "mutations")
        lines = survivors(chosen, root)
    except LabError as error:
        if os.environ.get("LAB_DEBUG") == "1":
            raise
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status
    for line in lines:
        print(line)
    print(f"{len(chosen)} mutations, {len({line.split()[0] for line in lines})} survived")
    return 1 if lines else 0


def _end(number: int, _: FrameType | None) -> None:
    # As an exception, so that the copy goes and what runs in it ends.
    sys.exit(128 + number)


if __name__ == "__main__":
    file = status.take_file()
    for asked in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(asked, _end)
    code = main(sys.argv[1:])
    status.record(file, code)
    sys.exit(code)
