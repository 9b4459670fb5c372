# SPDX-License-Identifier: GPL-2.0-only
"""The sessions of ./run.  What comes after ``--`` goes to ``lab test``.

Called by ./run, nox stands in .venv and the lab is installed there too, so
that ``.venv/bin/lab`` is the command for people.  Any other nox makes
environments of its own.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import nox
from nox.command import CommandFailed

ROOT = Path(__file__).resolve().parent
OWN = Path(sys.prefix) == ROOT / ".venv"
STATUS_FILE = os.environ.pop("LAB_STATUS_FILE", "")
CALLED_FROM = os.environ.pop("LAB_CALLED_FROM", str(ROOT))
NO_TESTS = ("-k", "-m", "--deselect", "--ignore", "--ignore-glob")
"""Words after which comes no test that is to be run."""


def hand_on(number: int, _: FrameType | None) -> None:
    """Let the program that runs end in order: nox itself would die and leave it alone."""
    try:
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    except OSError:  # a kernel without CONFIG_PROC_CHILDREN
        children = []
    if not children:
        raise KeyboardInterrupt
    for child in children:
        os.kill(int(child), number)


for asked in (signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(asked) != signal.SIG_IGN:
        signal.signal(asked, hand_on)

nox.options.sessions = ["tests"]
nox.options.default_venv_backend = "none" if OWN else "virtualenv"
nox.options.reuse_existing_virtualenvs = True


@nox.session
def e2e(session: nox.Session) -> None:
    """Build, boot and test: everything in tests/e2e, or what the arguments choose."""
    prepare(session)
    # Not everybody wants libvirt on their host.
    vagrant = ("--for", "vagrant") if wants_vagrant(session.posargs) else ()
    lab(session, "doctor", "--install", *vagrant)
    lab_test(session, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Unit and integration tests, and one end-to-end smoke test."""
    prepare(session)
    lab(session, "doctor", "--install")
    pytest(session, "tests/unit")
    lab_test(session, *(session.posargs or [str(ROOT / "tests/e2e/smoke")]))
    # After it, as they boot the kernel that is in the store then.
    pytest(session, "tests/integration")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, shell; patches and the modules' C as the kernel's maintainers read them."""
    prepare(session, "lint")
    lab(session, "doctor", "--install", "--for", "lint")
    python = bin_of(session) / "python"
    run(session, python, "-m", "ruff", "check", ".")
    run(session, python, "-m", "ruff", "format", "--check", ".")
    run(session, python, "-m", "mypy")
    run(session, "shellcheck", "run", ".ci/run", external=True)
    run(session, "shellcheck", "--severity=warning", *guest_scripts(), external=True)
    lab(session, "kernel", "lint", "all")  # by each one's own checkpatch; needs sources only
    lab(session, "modules", "lint")  # against a built kernel: its devel tree and flags


@nox.session
def bench(session: nox.Session) -> None:
    """The lab's speed, as ratios within one run; the guest's, in instructions (tests/bench)."""
    prepare(session, "bench")
    lab(session, "doctor", "--install")
    if session.posargs:
        pytest(session, "-s", *session.posargs)
        return
    in_guests = set((ROOT / "tests/bench").glob("test_*_cost.py"))
    others = set((ROOT / "tests/bench").glob("test_*.py")) - in_guests
    lab_test(session, "-s", "-n", "0", *map(str, sorted(in_guests)))
    pytest(session, "-s", *map(str, sorted(others)))


@nox.session
def mutate(session: nox.Session) -> None:
    """See that the tests notice broken code (tests/mutations)."""
    prepare(session)
    lab(session, "doctor", "--install")
    python = bin_of(session) / "python"
    given = {"LAB_STATUS_FILE": STATUS_FILE}
    run(session, python, "-m", "lab.testing.mutate", *session.posargs, env=given)


@nox.session
def box(session: nox.Session) -> None:
    """The Vagrant box."""
    prepare(session)
    lab(session, "doctor", "--install", "--for", "vagrant")
    lab(session, "image", "box", *session.posargs)


def wants_vagrant(words: Sequence[str]) -> bool:
    """Whether words for ``lab test`` name the provider, or tests that are run on it."""
    before = ""
    for word in words:
        if word == "--provider=vagrant" or (before, word) == ("--provider", "vagrant"):
            return True
        if not word.startswith("-") and before not in NO_TESTS and is_of_vagrant(word):
            return True
        before = word
    return False


def is_of_vagrant(test: str) -> bool:
    """Whether a test, as typed, is one that vagrant runs; the path is the user's or the root's."""
    path = test.partition("::")[0]
    places = (Path(os.path.normpath(base / path)) for base in (Path(CALLED_FROM), ROOT))
    place = next((place for place in places if place.exists()), None)
    return place is not None and place.is_relative_to(ROOT / "tests/e2e/vagrant")


def guest_scripts() -> list[str]:
    """The shell scripts of guests and modules, relative to the checkout."""
    files = [file for place in ("lunatik-src", "vm-images") for file in (ROOT / place).rglob("*")]
    return sorted(
        str(file.relative_to(ROOT))
        for file in files
        if file.is_file() and file.read_bytes()[:9] == b"#!/bin/sh"
    )


def lab_test(session: nox.Session, *args: str) -> None:
    """Run ``lab test`` from where the user stands, so that their paths mean what they say."""
    with session.chdir(CALLED_FROM):
        lab(session, "test", *args)


def lab(session: nox.Session, *args: str) -> None:
    """Run the lab; it writes its exit status to the file for ./run."""
    run(session, bin_of(session) / "lab", *args, env={"LAB_STATUS_FILE": STATUS_FILE})


def pytest(session: nox.Session, *args: str) -> None:
    """Run pytest without the lab; its exit status becomes one of the lab's."""
    python = bin_of(session) / "python"
    run(session, python, "-m", "lab.status", *args, env={"LAB_STATUS_FILE": STATUS_FILE})


def run(
    session: nox.Session,
    program: Path | str,
    *args: str,
    env: dict[str, str] | None = None,
    external: bool = OWN,
) -> None:
    """Run a program of the environment."""
    path = f"{bin_of(session)}{os.pathsep}{os.environ['PATH']}"
    variables = {"PATH": path, **(env or {})}
    session.run(
        str(program),
        *args,
        env=variables,
        external=external,
        # Ctrl-C: the lab ends machines and keeps its trees usable before it goes.
        interrupt_timeout=60.0,
        terminate_timeout=10.0,
    )


def bin_of(session: nox.Session) -> Path:
    """Where the environment's programs stand."""
    return Path(sys.prefix if OWN else session.virtualenv.location) / "bin"


def prepare(session: nox.Session, extra: str | None = None) -> None:
    """Install the lab and what it needs, unless pyproject.toml is as it was."""
    home = bin_of(session).parent
    stamp = home / f".lab-{extra or 'base'}"
    want = hashlib.sha256(f"{ROOT}\n".encode() + (ROOT / "pyproject.toml").read_bytes())
    with (home / ".lab-lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == want.hexdigest():
            return
        what = f"{ROOT}[{extra}]" if extra else str(ROOT)
        pip = (bin_of(session) / "python", "-m", "pip", "--disable-pip-version-check")
        try:
            run(session, *map(str, pip), "install", "--quiet", "--editable", what)
        except CommandFailed:
            # No network, or no index: as where ./run installs nox, it is the host that lacks.
            if STATUS_FILE:
                Path(STATUS_FILE).write_text("3\n")
            raise
        stamp.write_text(want.hexdigest())
