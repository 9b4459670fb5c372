# SPDX-License-Identifier: GPL-2.0-only
"""What the host must have, and how to get it.

The table of packages is the only place that knows Debian's names: what runs a
program that is missing asks here (``package_of``), and so does ``--install``.
"""

from __future__ import annotations

import fcntl
import os
import platform
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError
from lab.process import ProgramFailed, run
from lab.progress import note, progress, size
from lab.store import default_root

GIB = 1 << 30
DISK_WANTED = 35 * GIB
"""Sources, hot trees, ccache and artifacts of three kernels in three flavours."""
DISK_NEEDED = 8 * GIB
"""One kernel in one flavour."""
MEMORY_WANTED = 6 * GIB
MEMORY_NEEDED = 2 * GIB

LISTS = Path("/var/lib/apt/lists")
"""apt's; we lock the directory itself, which every user can open and apt leaves alone."""
LOCK_TIMEOUT = 600.0
"""Seconds to wait for whoever else installs something."""
LOCK_POLL = 0.2

OK, WARNING, MISSING = "ok", "warning", "missing"

ASKED_ONLY = ("lint", "kselftest", "vagrant")
"""Features that few need: missed only where asked for."""


@dataclass(frozen=True)
class Package:
    """A Debian package that the lab uses.

    Attributes:
        name: Debian's.
        feature: what it is for: kernel, llvm, image, vm, lint, debug, vagrant.
        why: what needs it.
        programs: those that we run; where all are on the PATH, from wherever,
            the package counts as installed.
        least: the oldest version that serves.
        optional: without it something is missing, but nothing fails.
    """

    name: str
    feature: str
    why: str
    programs: tuple[str, ...] = ()
    least: str | None = None
    optional: bool = False


PACKAGES = (
    Package("gcc", "kernel", "compiles kernels and modules", ("gcc",), least="12"),
    Package("make", "kernel", "runs kbuild", ("make",), least="4.3"),
    Package("binutils", "kernel", "links kernels", ("ld", "objcopy")),
    Package("libc6-dev", "kernel", "builds the kernel's host tools"),
    Package("flex", "kernel", "kconfig and dtc are written in it", ("flex",)),
    Package("bison", "kernel", "kconfig and dtc are written in it", ("bison",)),
    Package("bc", "kernel", "computes timeconst.h", ("bc",)),
    Package("libelf-dev", "kernel", "objtool and resolve_btfids read ELF"),
    Package("libssl-dev", "kernel", "certs/ of newer kernels is built with it"),
    Package("dwarves", "kernel", "pahole turns DWARF into BTF", ("pahole",), least="1.24"),
    Package("xz-utils", "kernel", "unpacks sources", ("xz",)),
    Package("lz4", "kernel", "compresses bzImage (CONFIG_KERNEL_LZ4)", ("lz4",)),
    Package("kmod", "kernel", "depmod indexes modules", ("depmod", "modinfo")),
    Package("cpio", "kernel", "the kernel packs its headers with it", ("cpio",)),
    Package("rsync", "kernel", "the kernel installs its headers with it", ("rsync",)),
    Package("perl", "kernel", "several of the kernel's scripts", ("perl",)),
    Package("python3", "kernel", "newer kernels' scripts", ("python3",)),
    Package("ccache", "kernel", "compiles nothing twice", ("ccache",)),
    Package("patch", "kernel", "applies patch series", ("patch",)),
    Package("git", "kernel", "git sources and ranges of commits", ("git",)),
    Package("ca-certificates", "kernel", "https sources"),
    Package("libxtables-dev", "kernel", "guests' iptables learns of Lua", least="1.8"),
    Package("clang", "llvm", "--llvm, and BPF programs of the tests", ("clang",), least="14"),
    Package("lld", "llvm", "--llvm", ("ld.lld",), least="14"),
    Package("llvm", "llvm", "--llvm, and BPF objects of the tests", ("llvm-objcopy",), least="14"),
    Package("libbpf-dev", "llvm", "headers for BPF programs of the tests"),
    Package("bpftool", "llvm", "kernels' types for BPF programs of the tests", ("bpftool",)),
    Package("mmdebstrap", "image", "makes the Debian root file system", ("mmdebstrap",)),
    Package("erofs-utils", "image", "makes images and payload disks", ("mkfs.erofs",)),
    Package("debian-archive-keyring", "image", "verifies Debian's suites"),
    Package("uidmap", "image", "makes images without root", ("newuidmap",)),
    Package("qemu-system-x86", "vm", "runs machines", ("qemu-system-x86_64",), least="7.2"),
    Package("qemu-utils", "vm", "makes overlay disks", ("qemu-img",), least="7.2"),
    Package("vde2", "vm", "is the switch of a LAN", ("vde_switch",)),
    Package("acpica-tools", "vm", "compiles the ACPI tables of frequency tests", ("iasl",)),
    Package("openssh-client", "vm", "lab ssh", ("ssh",)),
    Package("libmnl-dev", "kselftest", "the kernel's netfilter selftests speak netlink"),
    Package("libcap-dev", "kselftest", "the kernel's BPF and capability selftests"),
    Package("libnuma-dev", "kselftest", "the kernel's net selftests ask where memory is"),
    Package("gdb", "debug", "lab replay --gdb", ("gdb",), optional=True),
    Package("vagrant", "vagrant", "the Vagrantfile and the provider vagrant", ("vagrant",)),
    Package("vagrant-libvirt", "vagrant", "lets vagrant speak to libvirt"),
    Package("libvirt-daemon-system", "vagrant", "libvirtd and virtlogd", ("libvirtd", "virtlogd")),
    Package("libvirt-clients", "vagrant", "restores snapshots", ("virsh",)),
    Package("e2fsprogs", "vagrant", "makes the box's disk", ("mke2fs",)),
    Package("sparse", "lint", "checks kernel C", ("sparse",)),
    Package("shellcheck", "lint", "checks shell scripts", ("shellcheck",)),
    Package("codespell", "lint", "checkpatch's spelling", ("codespell",), optional=True),
)

SPARE_NAMES = {"dwarves": ("pahole",), "libc6-dev": ("libc-dev",)}
"""Other packages that do as well: newer Debians split pahole from dwarves."""


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        feature: what it is for.
        name: a package, or what of the host was looked at.
        status: "ok", "warning" or "missing".
        detail: the version or amount found, or what is wrong.
        why: what needs it.
    """

    feature: str
    name: str
    status: str
    detail: str
    why: str


def package_of(program: str) -> str | None:
    """The Debian package that brings a program; None if the lab does not know it."""
    return next((p.name for p in PACKAGES if program in p.programs), None)


def check(features: Iterable[str] = ()) -> list[Finding]:
    """Everything, in the order of the table.

    Args:
        features: those of ASKED_ONLY that are needed too.
    """
    return [*check_packages(PACKAGES, features), *check_host()]


def check_packages(packages: Iterable[Package], features: Iterable[str] = ()) -> list[Finding]:
    """Whether each package, or what it brings, is there and new enough."""
    packages, features = tuple(packages), tuple(features)
    installed = _installed(packages)
    return [
        _check_package(
            package,
            installed,
            optional=package.optional
            or (package.feature in ASKED_ONLY and package.feature not in features),
        )
        for package in packages
    ]


def check_host() -> list[Finding]:
    """The host apart from packages: processor, disk, memory, rights, KVM."""
    return [_machine(), _disk(), _memory(), _rights(), _namespaces(), _kvm()]


def missing_packages(features: Iterable[str] = ()) -> list[str]:
    """Packages that are needed and not there, too old ones too."""
    findings = check_packages(PACKAGES, features)
    return [finding.name for finding in findings if finding.status == MISSING]


def install_command(packages: Iterable[str]) -> str:
    """What a person types."""
    return "sudo apt-get install -y --no-install-recommends " + " ".join(packages)


def install(features: Iterable[str] = ()) -> list[str]:
    """Install what is missing; the names of it.

    Args:
        features: as for ``check``.

    Raises:
        HostError: we may not (names the one command), apt-get failed, or another
            lab has been installing for too long.
    """
    features = tuple(features)
    missing = missing_packages(features)
    if not missing:
        return []
    root = _as_root(missing)
    with _alone():
        # Whoever was before us may have installed the same.
        missing = missing_packages(features)
        if missing:
            _install(missing, root)
    left = missing_packages(features)
    if left:
        raise HostError(
            f"{', '.join(left)} cannot be had in a version that serves",
            right="the lab wants Debian 12 or newer",
        )
    return missing


def _install(missing: list[str], root: list[str]) -> None:
    apt = [*root, "apt-get", "-q", "-o", f"DPkg::Lock::Timeout={LOCK_TIMEOUT:.0f}"]
    env = {"DEBIAN_FRONTEND": "noninteractive"}
    note(f"installing {', '.join(missing)}")
    try:
        with progress("apt-get") as step:
            run([*apt, "update"], env=env, on_line=lambda line: step.update(detail=line[:60]))
            argv = [*apt, "install", "-y", "--no-install-recommends", *missing]
            run(argv, env=env, on_line=lambda line: step.update(detail=line[:60]))
    except ProgramFailed as error:
        raise HostError(
            f"apt-get could not install what is missing: {error.what}",
            right=f"run: {install_command(missing)}",
        ) from None


@contextmanager
def _alone() -> Iterator[None]:
    """One lab of the host at a time: `apt-get update` of Debian 12 (apt 2.6) gives up where
    its lists are locked, whatever DPkg::Lock::Timeout says.

    Raises:
        HostError: the time limit has passed.
    """
    place = None
    with suppress(OSError):  # where apt keeps its lists elsewhere
        place = os.open(LISTS, os.O_RDONLY)
    try:
        if place is not None and not _lock(place):
            note("waiting for another lab that installs packages")
            deadline = time.monotonic() + LOCK_TIMEOUT
            while not _lock(place):
                if time.monotonic() > deadline:
                    raise HostError(
                        f"another lab has been installing packages for {LOCK_TIMEOUT:.0f} s",
                        right="see what its apt-get waits for",
                    )
                time.sleep(LOCK_POLL)
        yield
    finally:
        if place is not None:
            os.close(place)


def _lock(place: int) -> bool:
    try:
        fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _as_root(missing: list[str]) -> list[str]:
    """The words that make the next command root's."""
    if not shutil.which("apt-get"):
        raise HostError(
            f"the host lacks {', '.join(missing)}, and has no apt-get to install them",
            right="install what brings the same programs",
        )
    if os.geteuid() == 0:
        return []
    if _can_sudo():
        return ["sudo", "-n", "DEBIAN_FRONTEND=noninteractive"]
    raise HostError(
        f"the host lacks {', '.join(missing)}", right=f"run: {install_command(missing)}"
    )


def _can_sudo() -> bool:
    return shutil.which("sudo") is not None and _succeeds("sudo", "-n", "true")


def _succeeds(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=5, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _installed(packages: tuple[Package, ...]) -> dict[str, str]:
    """Name -> version of those that dpkg has, in one call."""
    names = [package.name for package in packages]
    names += [spare for name in names for spare in SPARE_NAMES.get(name, ())]
    try:
        listed = subprocess.run(
            ["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\n", *names],
            capture_output=True,
            text=True,
            check=False,  # 1 if any is unknown
        ).stdout
    except FileNotFoundError:
        return {}  # no Debian: programs on the PATH may still do
    rows = [line.split() for line in listed.splitlines()]
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}


def _check_package(package: Package, installed: dict[str, str], *, optional: bool) -> Finding:
    names = (package.name, *SPARE_NAMES.get(package.name, ()))
    version = next((installed[name] for name in names if name in installed), None)
    on_path = bool(package.programs) and all(map(_which, package.programs))
    status, detail = OK, version or "on the PATH"
    if version is None and not on_path:
        status, detail = WARNING if optional else MISSING, "not installed"
    elif version and package.least and _parts(version) < _parts(package.least):
        status, detail = MISSING, f"{version} is older than {package.least}"
    return Finding(package.feature, package.name, status, detail, package.why)


def _which(program: str) -> str | None:
    # An ordinary user's PATH lacks the directories of the administrator's tools.
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin:/sbin"
    return shutil.which(program, path=path)


def _parts(version: str) -> tuple[int, ...]:
    """The upstream part of a Debian version as numbers: ``1:7.2+dfsg-7`` is (7, 2)."""
    upstream = version.split(":", 1)[-1]
    found = re.match(r"[0-9]+(\.[0-9]+)*", upstream)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def _machine() -> Finding:
    machine = platform.machine()
    good = machine == "x86_64" and platform.system() == "Linux"
    return Finding(
        "host",
        "processor",
        OK if good else MISSING,
        f"{machine}, {len(os.sched_getaffinity(0))} cpus",
        "kernels and machines are x86_64",
    )


def _disk() -> Finding:
    root = default_root()
    there = root
    while not there.exists():
        there = there.parent
    free = shutil.disk_usage(there).free
    # What is in the store already need not fit once more.
    needed = DISK_NEEDED if not (root / "artifacts" / "kernel").exists() else GIB
    status = MISSING if free < needed else WARNING if free < DISK_WANTED else OK
    detail = f"{size(free)} free for {root}"
    if status != OK:
        detail += f", {size(needed)} needed, {size(DISK_WANTED)} wanted"
    return Finding("host", "disk", status, detail, "sources, builds and images")


def _memory() -> Finding:
    amounts = dict(
        re.findall(r"^(\w+):\s+(\d+) kB$", Path("/proc/meminfo").read_text(), re.MULTILINE)
    )
    free = int(amounts["MemAvailable"]) * 1024
    status = MISSING if free < MEMORY_NEEDED else WARNING if free < MEMORY_WANTED else OK
    return Finding("host", "memory", status, f"{size(free)} available", "machines")


def _rights() -> Finding:
    if os.geteuid() == 0:
        detail = "root"
    else:
        detail = "an ordinary user" + (", sudo without password" if _can_sudo() else ", no sudo")
    return Finding("host", "rights", OK, detail, "only installing packages needs root")


def _namespaces() -> Finding:
    # With a range of users, as mmdebstrap has it: files of an image have several owners.
    works = os.geteuid() == 0 or _succeeds("unshare", "--map-auto", "--map-root-user", "true")
    return Finding(
        "host",
        "user namespaces",
        OK if works else WARNING,
        "usable"
        if works
        else "not usable: install uidmap and have a line in /etc/subuid, or make images as root",
        "makes images without root",
    )


def _kvm() -> Finding:
    # It imports us by way of process.py.
    from lab.store import Store
    from lab.vm.accel import choose

    accel = choose("auto", Store())
    status = OK if accel.name == "kvm" else WARNING
    return Finding("host", "KVM", status, accel.why, "faster machines; TCG serves otherwise")
