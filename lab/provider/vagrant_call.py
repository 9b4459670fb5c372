# SPDX-License-Identifier: GPL-2.0-only
"""Calls of `vagrant`, through python-vagrant: bounded, logged, in a group of their own.

python-vagrant runs programs without a time limit and loses what they say on
their standard error, so it gets a runner of ours; and its reading of
`vagrant status` falls over a stray line, so that is ours as well.
"""

from __future__ import annotations

import csv
import os
import pwd
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import vagrant

from lab.errors import HostError, InfraError
from lab.process import Finished, ProgramTimeout, run

#: Seconds for a call that only asks; it takes 1 to 2.
ASK_TIMEOUT = 60.0

#: Variables of the caller's that `vagrant` and libvirt may see.
PASSED_ON = ("PATH", "LANG", "LC_ALL", "TERM", "TMPDIR")

_ERROR_LINE = re.compile(r"^\d+,[^,]*,error-exit,(?P<kind>[^,]*),(?P<text>.*)$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Account:
    """Who runs vagrant, and where all that is libvirt's and Vagrant's is kept.

    Attributes:
        user: runs everything; None for whoever we are.
        home: HOME: libvirt's volumes.
        short: XDG_RUNTIME_DIR and libvirt's configuration: a path short
            enough for sockets (107 bytes).
        vagrant_home: boxes.
    """

    user: str | None
    home: Path
    short: Path
    vagrant_home: Path

    def prefix(self) -> list[str]:
        """What makes a command the user's."""
        if self.user is None:
            return []
        entry = pwd.getpwnam(self.user)
        return [
            "setpriv",
            f"--reuid={entry.pw_uid}",
            f"--regid={entry.pw_gid}",
            "--clear-groups",
            "--no-new-privs",
        ]

    def environment(self) -> dict[str, str]:
        """All variables that a command gets."""
        own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        name = self.user or pwd.getpwuid(os.geteuid()).pw_name
        return own | {
            "HOME": str(self.home),
            "USER": name,
            "LOGNAME": name,
            "XDG_RUNTIME_DIR": str(self.short),
            "XDG_CONFIG_HOME": str(self.short / "c"),
            "XDG_CACHE_HOME": str(self.home / ".cache"),
            "XDG_DATA_HOME": str(self.home / ".local/share"),
            "VAGRANT_HOME": str(self.vagrant_home),
            "VAGRANT_CHECKPOINT_DISABLE": "1",
            "VAGRANT_NO_COLOR": "1",
        }

    def call(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path,
        timeout: float,
        log: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> Finished:
        """Run a command as the user, whatever its status.

        Raises:
            InfraError: it did not end in time; all of its group is ended.
        """
        variables = {**self.environment(), **(env or {})}
        # `env -i`: a variable of ours, such as VAGRANT_CWD, would change what it does.
        words = ["env", "-i", *(f"{key}={value}" for key, value in variables.items())]
        return run([*self.prefix(), *words, *argv], cwd=cwd, timeout=timeout, log=log, check=False)

    def owns(self, path: Path) -> None:
        """Give a file or directory of ours to the user."""
        if self.user is not None:
            entry = pwd.getpwnam(self.user)
            os.chown(path, entry.pw_uid, entry.pw_gid)


class CallFailed(InfraError):
    """`vagrant` ended with a status other than 0; with what it said."""

    def __init__(self, finished: Finished, words: Sequence[str]) -> None:
        self.finished = finished
        super().__init__(f"`vagrant {' '.join(words)}` failed: {complaint(finished)}")


class Vagrant(vagrant.Vagrant):
    """One directory with a Vagrantfile.

    Args:
        root: the directory.
        account: who runs it.
        env: further variables.
        log: file that gets all output.
    """

    def __init__(self, *, root: Path, account: Account, env: dict[str, str], log: Path) -> None:
        super().__init__(root=str(root))  # type: ignore[no-untyped-call]
        self.place = root
        self.account = account
        self.variables = env
        self.log = log
        self.limit = ASK_TIMEOUT

    def within(self, seconds: float) -> Vagrant:
        """The same, each call of which may take so long."""
        other = Vagrant(root=self.place, account=self.account, env=self.variables, log=self.log)
        other.limit = seconds
        return other

    def states(self) -> dict[str, str]:
        """The state of each machine that `vagrant` spoke of, by name."""
        return read_states(self._run_vagrant_command(["status", "--machine-readable"]))

    def put_up(self, machine: str) -> None:
        """`vagrant up` of one machine."""
        self.up(machine, provider="libvirt")  # type: ignore[no-untyped-call]

    def remove(self, machine: str) -> None:
        """`vagrant destroy` of one machine."""
        self.destroy(machine)  # type: ignore[no-untyped-call]

    # python-vagrant's own words for these have no machine, or no file.

    def freeze(self, machine: str, snapshot: str) -> None:
        """`vagrant snapshot save` of one machine."""
        self._call(["snapshot", "save", machine, snapshot])

    def add_box(self, catalog: Path) -> None:
        """`vagrant box add`, from a file that says where the box is."""
        self._call(["box", "add", "--force", str(catalog)])

    def say(self, *words: str) -> str:
        """What any other call prints."""
        return self._call(words).stdout

    def _call_vagrant_command(self, args: Sequence[str | None]) -> None:
        self._call(args)

    def _run_vagrant_command(self, args: Sequence[str | None]) -> str:
        return self._call(args).stdout

    def _call(self, args: Sequence[str | None]) -> Finished:
        words = [word for word in args if word is not None]
        try:
            finished = self.account.call(
                [program(), *words],
                cwd=self.place,
                timeout=self.limit,
                log=self.log,
                env=self.variables,
            )
        except ProgramTimeout as error:
            raise InfraError(
                f"`vagrant {' '.join(words)}` did not end within {self.limit:g} s; "
                f"it said last: {complaint(error.finished)}",
                file=self.log,
            ) from error
        if finished.status != 0:
            raise CallFailed(finished, words)
        return finished


def program() -> str:
    """The path of `vagrant`.

    Raises:
        HostError: it is not installed.
    """
    found = shutil.which("vagrant")
    if found is None:
        raise HostError(
            "vagrant is not installed",
            right="lab doctor --install --for vagrant",
        )
    return found


def read_states(text: str) -> dict[str, str]:
    """The states in `vagrant status --machine-readable`, whatever else is in it.

    Lines of several machines may be mixed, and plugins write lines of their
    own among them; the last word on a machine counts.
    """
    states: dict[str, str] = {}
    for row in csv.reader(line for line in text.splitlines() if line.count(",") >= 3):
        if len(row) >= 4 and row[0].isdigit() and row[1] and row[2] == "state":
            states[row[1]] = row[3]
    return states


def complaint(finished: Finished, lines: int = 8) -> str:
    """What a call said was wrong, or its last lines."""
    found = _ERROR_LINE.search(finished.stdout)
    if found is not None:
        kind = found["kind"].rpartition("::")[2]
        text = found["text"].replace("%!(VAGRANT_COMMA)", ",").replace("\\n", "\n").strip()
        return f"{text} ({kind})"
    said = finished.stderr if finished.stderr.strip() else finished.stdout
    # Its progress bars are one line with many carriage returns.
    rows = [row.rpartition("\r")[2].strip() for row in said.split("\n")]
    told = [row for row in rows if row][-lines:]
    if not told:
        return f"it ended with status {finished.status} and said nothing"
    return "\n".join(told)
