# SPDX-License-Identifier: GPL-2.0-only
"""A private apt: one suite of the host's own mirror, nothing of the host touched.

Which mirror serves the host, through which proxy and with which credentials,
is the host's affair and is taken from its apt configuration; so no host name
stands in this project.  Works without root, on a host of any Debian release.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError
from lab.process import Finished, ProgramFailed, run
from lab.progress import Step, note, progress
from lab.store import Store

KEYRINGS = (
    # Debian 13 has both spellings, Debian 12 the second only.
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
)
HELPER = "/usr/lib/apt/apt-helper"
GLANCE = 0.5
"""Seconds between two looks at how far a download is."""
RETRIES = 3
QUIET = 120
"""Seconds without a byte after which apt gives a connection up."""

SETTINGS = """\
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::sourcelist "{root}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "{root}/state";
Dir::State::lists "{root}/lists";
Dir::State::status "{root}/state/status";
Dir::Cache "{root}/cache";
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
APT::Get::List-Cleanup "true";
Acquire::Languages "none";
Acquire::Retries "{retries}";
Acquire::http::Timeout "{quiet}";
Acquire::https::Timeout "{quiet}";
"""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One version of a package in a suite.

    Attributes:
        size: bytes of the .deb.
        sha256: of the .deb, from the signed index.
        file: its name, as it is kept in lab.lock.
    """

    name: str
    version: str
    size: int
    sha256: str
    file: str


class Suite:
    """One suite, through a private apt root; use ``open_suite``."""

    def __init__(self, name: str, root: Path) -> None:
        self.name = name
        self.root = root
        self._fresh = False

    def packages(self, name: str) -> list[Package]:
        """Every version of a package that the suite has, newest first.

        Raises:
            HostError: the suite cannot be read.
        """
        self._update()
        shown = self._apt("apt-cache", "show", "--all-versions", name, check=False).stdout
        found = [_package(stanza) for stanza in re.split(r"\n\n+", shown.strip()) if stanza]
        # A suite may list the same version once per architecture.
        return list({package.version: package for package in found}.values())

    def download(self, package: Package) -> Path:
        """Fetch a .deb; goes on where a broken download stopped, in an earlier run even.

        Raises:
            HostError: the mirror does not give it.
        """
        directory = self.root / "debs"
        directory.mkdir(exist_ok=True)
        target = directory / package.file
        label = f"download {package.name} {package.version}"
        with progress(label, total=package.size) as step, _growth(target, step):
            self._fetch(*self._downloader(package, target), cwd=directory)
        if not target.is_file():
            raise HostError(f"apt did not leave {target.name}", file=directory)
        return target

    def _downloader(self, package: Package, target: Path) -> tuple[str, ...]:
        plain = ("apt-get", "download", f"{package.name}={package.version}")
        said = self._apt(*plain, "--print-uris").stdout
        uri = said.split("' ", 1)[0].lstrip("'")
        if not re.match("(https?|file|copy|ftp):", uri):
            # A mirror list, which the helper cannot read.
            return plain
        # `apt-get download` (apt 2.6) begins anew each time that it is called.
        return (HELPER, "download-file", uri, str(target), f"SHA256:{package.sha256}")

    def _update(self) -> None:
        if self._fresh:
            return
        with progress(f"read the package lists of {self.name}"):
            self._fetch("apt-get", "update", "-oAPT::Update::Error-Mode=any")
        self._fresh = True

    def _fetch(self, *argv: str, cwd: Path | None = None) -> None:
        try:
            self._apt(*argv, cwd=cwd)
        except ProgramFailed as error:
            raise self._explain(error.finished) from None

    def _apt(self, *argv: str, cwd: Path | None = None, check: bool = True) -> Finished:
        env = {"APT_CONFIG": str(self.root / "apt.conf"), "LC_ALL": "C"}
        return run(argv, cwd=cwd, env=env, check=check)

    def _explain(self, finished: Finished) -> HostError:
        said = [line for line in finished.stderr.splitlines() if line.startswith(("E: ", "W: "))]
        text = "\n".join(said) or finished.tail(5)
        right = "see that `apt-get update` works on this host"
        if "NO_PUBKEY" in text or "not signed" in text or "is not available" in text:
            right = "install the newest debian-archive-keyring, which brings the suite's key"
        elif "does not have a Release file" in text or "404" in text:
            right = "see that the suite's name in lab.yaml is right and that the mirror has it"
        return HostError(f"the Debian suite {self.name} cannot be read:\n{text}", right=right)


@contextmanager
def open_suite(name: str, store: Store, *, sources: str | None = None) -> Iterator[Suite]:
    """A suite, ours alone while the block runs.

    Args:
        name: "bookworm-security", "trixie-backports".
        sources: lines for sources.list, instead of the host's own mirror.

    Raises:
        HostError: apt is not there or knows no Debian mirror.
    """
    with store.hot("apt", name) as root:
        for directory in ("state", "lists/partial", "cache/archives/partial"):
            (root / directory).mkdir(parents=True, exist_ok=True)
        (root / "state" / "status").touch()
        settings = acquire_settings() + SETTINGS.format(
            root=root,
            architecture=run(("dpkg", "--print-architecture")).stdout.strip(),
            retries=RETRIES,
            quiet=QUIET,
        )
        conf = root / "apt.conf"
        conf.touch(mode=0o600)  # a proxy's password may be in it
        conf.write_text(settings)
        (root / "sources.list").write_text(sources or source_line(name))
        yield Suite(name, root)


def mirror(suite: str, *, targets: str) -> str | None:
    """The base URI that serves a suite.

    Args:
        targets: lines ``RELEASE|COMPONENT|URI`` of what the host itself uses.
    """
    security = suite.endswith("-security")
    main: list[str] = []
    for line in targets.splitlines():
        release, component, uri = line.split("|", 2)
        if component != "main":
            continue
        if release == suite:
            return uri
        # "bookworm/updates" was a security suite's name until Debian 10.
        if release.endswith(("-security", "/updates")) == security:
            main.append(uri)
    if main:
        # Other vendors have components called main, too; Debian's own is the
        # archive from which most suites of this host come.
        return max(main, key=main.count)
    if security:
        plain = mirror(suite.removesuffix("-security"), targets=targets)
        # Mirrors keep the security archive beside the main one.
        return None if plain is None else plain.rstrip("/") + "-security/"
    return None


def source_line(suite: str) -> str:
    """The line of a sources.list that gives a suite from the host's own mirror."""
    targets = run(
        (
            "apt-get",
            "indextargets",
            "--no-release-info",
            "--format",
            "$(RELEASE)|$(COMPONENT)|$(REPO_URI)",
            "Created-By: Packages",
        )
    ).stdout
    uri = mirror(suite, targets=targets)
    if uri is None:
        raise HostError(
            "apt on this host knows no Debian mirror",
            right="add one to /etc/apt/sources.list.d, as on any Debian",
        )
    keyring = next((path for path in KEYRINGS if path.is_file()), None)
    if keyring is None:
        note("no debian-archive-keyring: trusting the keys that apt trusts")
    options = f"[signed-by={keyring}] " if keyring else ""
    return f"deb {options}{uri} {suite} main\n"


def acquire_settings() -> str:
    """The host's proxies, certificates and time limits, without the rest of its settings.

    The rest may hold hooks that only root can run (packagekit's, docker's).
    """
    dump = run(("apt-config", "dump", "Acquire")).stdout
    return "".join(
        f"{line}\n"
        for line in dump.splitlines()
        if not line.startswith(("Acquire::Languages", "Acquire::IndexTargets"))
    )


@contextmanager
def _growth(file: Path, step: Step) -> Iterator[None]:
    """Show how a file grows, for apt-helper itself says nothing meanwhile."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(GLANCE):
            step.update(file.stat().st_size if file.exists() else 0)

    watcher = threading.Thread(target=watch, name="download", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _package(stanza: str) -> Package:
    fields = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", stanza, re.MULTILINE))
    return Package(
        name=fields["Package"],
        version=fields["Version"],
        size=int(fields["Size"]),
        sha256=fields["SHA256"],
        file=Path(fields["Filename"]).name,
    )
