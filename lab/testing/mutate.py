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
    good: set[Killer] = set()
    with tempfile.TemporaryDirectory(prefix="lab-mutate-") as directory:
        copy = Path(directory, "checkout")
        copy_checkout(root, copy)
        for flavour in sorted({k.flavour for each in chosen for k in each.killers if k.flavour}):
            # Not within the time limit of a test.
            run([*LAB, "kernel", "build", "--flavour", flavour], cwd=copy, env=_environment(copy))
        for mutation in chosen:
            for killer in mutation.killers:
                if killer not in good and not passes(copy, killer):
                    raise UserError(
                        f"{killer} does not pass without the mutation", file=mutation.file
                    )
                good.add(killer)
            with progress(f"mutation {mutation.name}"):
                lines += _survived(mutation, copy)
    return lines


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


def passes(copy: Path, killer: Killer) -> bool:
    """Whether a test passes in the copy."""
    finished = _run_test(copy, killer)
    return finished is not None and finished.status == 0


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


def _run_test(copy: Path, killer: Killer) -> Finished | None:
    if killer.end_to_end:
        flavour = ("--flavour", killer.flavour, "--no-shared") if killer.flavour else ()
        argv = [*LAB, "test", *flavour, killer.test]
    else:
        argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", killer.test]
    try:
        return run(argv, cwd=copy, env=_environment(copy), timeout=TIME_LIMIT, check=False)
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
