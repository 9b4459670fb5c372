# SPDX-License-Identifier: GPL-2.0-only
"""The doctor on hosts that lack this and that."""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from lab import doctor
from lab.doctor import MISSING, OK, WARNING, Package
from lab.errors import HostError

QEMU = Package("qemu-system-x86", "vm", "runs machines", ("qemu-system-x86_64",), least="7.2")
HEADERS = Package("libelf-dev", "kernel", "reads ELF")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it but a dpkg-query that knows nothing."""
    monkeypatch.setattr(doctor, "_which", lambda program: _on(tmp_path, program))
    monkeypatch.setenv("PATH", str(tmp_path))
    dpkg_knows(tmp_path, "")
    return tmp_path


def _on(path: Path, program: str) -> str | None:
    return str(path / program) if (path / program).exists() else None


def program(path: Path, name: str, text: str = "") -> None:
    (path / name).write_text(f"#!/bin/sh\n{text}\n")
    (path / name).chmod(0o755)


def dpkg_knows(path: Path, lines: str) -> None:
    program(path, "dpkg-query", f"echo '{lines}'")


def status_of(package: Package) -> tuple[str, str]:
    finding = doctor.check_packages([package])[0]
    return finding.status, finding.detail


def test_installed(path: Path) -> None:
    dpkg_knows(path, "qemu-system-x86 1:10.0.2+ds-2 installed")
    assert status_of(QEMU) == (OK, "1:10.0.2+ds-2")


def test_missing(path: Path) -> None:
    assert status_of(QEMU) == (MISSING, "not installed")
    assert status_of(HEADERS) == (MISSING, "not installed")


def test_removed_but_not_purged_is_missing(path: Path) -> None:
    dpkg_knows(path, "libelf-dev 0.188 config-files")
    assert status_of(HEADERS)[0] == MISSING


def test_own_build_on_the_path_serves(path: Path) -> None:
    program(path, "qemu-system-x86_64")
    assert status_of(QEMU) == (OK, "on the PATH")


def test_too_old(path: Path) -> None:
    dpkg_knows(path, "qemu-system-x86 1:5.2+dfsg-11 installed")
    assert status_of(QEMU) == (MISSING, "1:5.2+dfsg-11 is older than 7.2")


def test_other_name(path: Path) -> None:
    pahole = Package("dwarves", "kernel", "BTF", ("pahole",), least="1.24")
    dpkg_knows(path, "pahole 1.30-1 installed")
    assert status_of(pahole) == (OK, "1.30-1")


def test_optional_is_a_warning(path: Path) -> None:
    assert status_of(Package("gdb", "debug", "debugs", ("gdb",), optional=True))[0] == WARNING


def test_lint_is_needed_only_where_asked_for(path: Path) -> None:
    sparse = Package("sparse", "lint", "checks", ("sparse",))
    assert doctor.check_packages([sparse])[0].status == WARNING
    assert doctor.check_packages([sparse], ["lint"])[0].status == MISSING


@pytest.mark.parametrize(
    ("version", "parts"),
    [("1:7.2+dfsg-7+deb12u18", (7, 2)), ("4:12.2.0-3", (12, 2, 0)), ("1.24-4.1", (1, 24))],
)
def test_upstream_version(version: str, parts: tuple[int, ...]) -> None:
    assert doctor._parts(version) == parts


def test_the_table_is_sound() -> None:
    names = [package.name for package in doctor.PACKAGES]
    assert len(set(names)) == len(names)
    assert all(package.why for package in doctor.PACKAGES)
    assert doctor.package_of("mkfs.erofs") == "erofs-utils"
    assert doctor.package_of("no-such-program") is None


def test_every_package_has_its_reason_in_the_docs() -> None:
    root = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "dependencies.md").read_text()
    named = set(re.findall(r"`([A-Za-z0-9.+_-]+)`", page))
    pinned = re.findall(r'"([A-Za-z0-9._-]+)==', (root / "pyproject.toml").read_text())
    assert pinned
    assert {p.name for p in doctor.PACKAGES} | set(pinned) <= named


def test_install_without_rights_says_the_one_command(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", (QEMU, HEADERS))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program(path, "apt-get", "exit 1")
    with pytest.raises(HostError) as caught:
        doctor.install()
    command = "sudo apt-get install -y --no-install-recommends qemu-system-x86 libelf-dev"
    assert caught.value.right == f"run: {command}"
    assert caught.value.exit_status == 3


def test_install_as_root(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", (HEADERS,))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    log = path / "log"
    dpkg_knows(path, "")
    install = f'echo "$*" >>{log}; [ "$2" = update ] || echo \'#!/bin/sh\necho libelf-dev 0.188 \
installed\' >{path}/dpkg-query'
    program(path, "apt-get", install)
    assert doctor.install() == ["libelf-dev"]
    assert log.read_text().splitlines() == [
        "-q -o DPkg::Lock::Timeout=600 update",
        "-q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends libelf-dev",
    ]


@pytest.fixture
def other_lab(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The descriptor with which another lab has the lock; this host lacks a package."""
    lists = path / "lists"
    lists.mkdir()
    monkeypatch.setattr(doctor, "PACKAGES", (HEADERS,))
    monkeypatch.setattr(doctor, "LISTS", lists)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(path, "apt-get", f"touch {path}/called")
    other = os.open(lists, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    yield other
    os.close(other)


def test_two_labs_do_not_install_at_once(
    path: Path, other_lab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that waited finds that the other has installed all that it wanted."""

    def come_to_an_end(_: float) -> None:
        dpkg_knows(path, "libelf-dev 0.188 installed")
        fcntl.flock(other_lab, fcntl.LOCK_UN)

    monkeypatch.setattr(doctor, "time", SimpleNamespace(sleep=come_to_an_end, monotonic=float))
    assert doctor.install() == []
    assert not (path / "called").exists()


def test_another_lab_is_not_waited_for_without_end(
    path: Path, other_lab: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        assert clock[0] < 2 * doctor.LOCK_TIMEOUT

    monkeypatch.setattr(doctor, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: clock[0]))
    with pytest.raises(HostError, match="another lab has been installing packages for 600 s"):
        doctor.install()
    assert not (path / "called").exists()


def test_install_that_fails_shows_apts_words(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", (HEADERS,))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program(path, "apt-get", "echo E: Could not resolve >&2; exit 100")
    with pytest.raises(HostError, match="Could not resolve"):
        doctor.install()


def test_install_without_apt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", (HEADERS,))
    with pytest.raises(HostError, match="has no apt-get"):
        doctor.install()


def test_nothing_missing_calls_no_apt(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", (HEADERS,))
    dpkg_knows(path, "libelf-dev 0.188 installed")
    program(path, "apt-get", f"touch {path}/called")
    assert doctor.install() == []
    assert not (path / "called").exists()


def test_little_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path / "not" / "there" / "yet"))
    monkeypatch.setattr(doctor, "DISK_NEEDED", 1 << 60)
    assert doctor._disk().status == MISSING
    monkeypatch.setattr(doctor, "DISK_NEEDED", 0)
    monkeypatch.setattr(doctor, "DISK_WANTED", 1 << 60)
    assert doctor._disk().status == WARNING
    monkeypatch.setattr(doctor, "DISK_WANTED", 0)
    assert doctor._disk().status == OK


def test_a_user_without_a_range_of_users_makes_no_images(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program(path, "unshare", 'case "$*" in *--map-auto*) exit 1 ;; esac')
    found = doctor._namespaces()
    assert found.status == WARNING
    assert "/etc/subuid" in found.detail
    program(path, "unshare")
    assert doctor._namespaces().status == OK


@pytest.mark.parametrize("args", [[], ["--install"]])
def test_command_without_qemu_ends_with_3(tmp_path: Path, args: list[str]) -> None:
    """The whole command, on a host whose dpkg has everything but QEMU, as nobody's root."""
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    rows = [f"{p.name} 99 installed" for p in doctor.PACKAGES if "qemu" not in p.name]
    dpkg_knows(bin_, "\n".join(rows))
    code = (
        "import os, sys; os.geteuid = lambda: 1000\n"
        "from lab import cli, doctor\n"
        "doctor._which = lambda program: None\n"
        f"sys.exit(cli.run(['doctor', *{args!r}]))"
    )
    program(bin_, "apt-get", "exit 1")
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": str(bin_), "LAB_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.strip().splitlines() == [
        "lab: the host lacks qemu-system-x86, qemu-utils; run: "
        "sudo apt-get install -y --no-install-recommends qemu-system-x86 qemu-utils"
    ]


def test_json(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "doctor", "--json"],
        env={**os.environ, "LAB_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert set(rows["KVM"]) == {"feature", "name", "status", "detail", "why"}
    assert done.returncode in (0, 3)
