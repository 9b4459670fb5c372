# SPDX-License-Identifier: GPL-2.0-only
"""Where one run of the provider lives, and as whom.

Each run has libvirt to itself: daemons, domains, volumes and sockets all live
below two directories that no other run knows, so two runs cannot meet, and
what a run leaves is whatever uses these directories.  The reaper knows them.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from lab.errors import HostError
from lab.process import run
from lab.provider.vagrant_call import Account
from lab.store import Store
from lab.vm.reaper import Estate, users_of
from lab.vm.runtime import runtime

#: Who runs libvirt's session when we are root: with root's rights there would
#: be no session, but the system's daemon and its firewall rules.
USER = "lunatik-lab"
USER_HOME = Path("/var/lib/lunatik-lab")

#: Below them the runs' directories begin with this, so that sweeping finds them.
MARK = "v-"


@dataclass(frozen=True, kw_only=True)
class Run:
    """The two directories of a run, and the account that owns them.

    Attributes:
        account: who.
        home: Vagrantfile, plan, logs, volumes.
        short: sockets.
    """

    account: Account
    home: Path
    short: Path

    def end(self) -> None:
        """End everything that lives in the directories, and remove them."""
        estate = Estate()
        estate.directories |= {self.home, self.short}
        estate.settle()
        for path in (self.home, self.short):
            runtime().reaper.keep_directory(path)


def open_run(store: Store) -> Run:
    """A new run's directories.

    Raises:
        HostError: we are root, and no user can be made.
    """
    user = unprivileged_user() if os.geteuid() == 0 else None
    base = USER_HOME if user else store.root / "vagrant"
    base.mkdir(parents=True, exist_ok=True)
    sweep(base)
    mark = f"{MARK}{os.getpid()}-{secrets.token_hex(3)}"
    home = base / mark
    short = Path(tempfile.gettempdir()) / f"lab-{mark}"
    boxes = base / "vagrant.d"
    account = Account(user=user, home=home, short=short, vagrant_home=boxes)
    for path in (home, short):
        # Told before it is there: what stands in between must not be left.
        runtime().reaper.adopt_directory(path)
        path.mkdir(mode=0o700)
        account.owns(path)
    if not boxes.is_dir():
        boxes.mkdir(exist_ok=True)
        account.owns(boxes)
    return Run(account=account, home=home, short=short)


def sweep(base: Path) -> list[Path]:
    """Clear away runs whose lab was killed together with its reaper."""
    gone = []
    for place in (base, Path(tempfile.gettempdir())):
        for path in [*place.glob(f"{MARK}*"), *place.glob(f"lab-{MARK}*")]:
            words = path.name.removeprefix("lab-").split("-")
            owned = path.stat().st_uid in (os.geteuid(), _uid(USER))
            if owned and words[1].isdigit() and not Path(f"/proc/{words[1]}").exists():
                estate = Estate()
                estate.directories.add(path)
                estate.settle()
                gone.append(path)
    return gone


def unprivileged_user() -> str:
    """The user that a lab of root's drops to; made if there is none.

    Raises:
        HostError: it cannot be made.
    """
    with FileLock("/run/lock/lunatik-lab-user.lock"):
        if _uid(USER) is None:
            _make_user()
    return USER


def _make_user() -> None:
    program = shutil.which("useradd", path="/usr/sbin:/sbin:" + os.environ.get("PATH", ""))
    if program is None:
        raise HostError(
            "libvirt's session wants an ordinary user, and root cannot make one: no useradd",
            right="install the package passwd, or run the lab as an ordinary user",
        )
    words = ["--system", "--create-home", "--home-dir", str(USER_HOME), "--shell"]
    done = run([program, *words, "/usr/sbin/nologin", USER], timeout=60, check=False)
    if done.status != 0:
        raise HostError(
            f"libvirt's session wants an ordinary user, and root cannot make one: {done.tail(2)}",
            right="run the lab as an ordinary user",
        )


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


@contextmanager
def readable(path: Path) -> Iterator[Path]:
    """A path that the unprivileged user can read: itself, or a copy for a while."""
    with tempfile.TemporaryDirectory(prefix="lab-box-") as place:
        Path(place).chmod(0o755)  # a box is no secret
        copy = Path(place) / path.name
        shutil.copyfile(path, copy)
        copy.chmod(0o644)
        yield copy


def uses(directory: Path) -> list[str]:
    """The command lines of processes that live in a directory."""
    lines = []
    for pid in users_of(directory):
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        lines.append(raw.replace(b"\0", b" ").decode(errors="replace").strip())
    return lines
