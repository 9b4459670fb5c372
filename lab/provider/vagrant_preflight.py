# SPDX-License-Identifier: GPL-2.0-only
"""What Vagrant's machines need, looked at before anything is started.

Vagrant itself says of most of it nothing that helps, or waits for ever.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.doctor import MISSING, OK, Finding
from lab.errors import HostError, LabError
from lab.process import run

PLUGIN = "vagrant-libvirt"

#: Where Debian puts gems.
GEMS = Path("/usr/share/rubygems-integration")

#: What a stock systemd, the guest agent and Vagrant ask of a kernel.
SYMBOLS = (
    "FILE_LOCKING",
    "FHANDLE",
    "AUTOFS_FS",
    "SECCOMP",
    "CGROUP_PIDS",
    "MEMCG",
    "POSIX_MQUEUE",
    "TMPFS_XATTR",
    "EXT4_FS",
    "EXT4_FS_SECURITY",
    "DMIID",
    "INPUT",
    "ACPI_BUTTON",
    "VIRTIO_CONSOLE",
    "OVERLAY_FS",
    "FW_CFG_SYSFS",
)

#: Programs with the package that brings them and what is missing without.
PROGRAMS = (
    ("vagrant", "vagrant", "runs the machines"),
    ("libvirtd", "libvirt-daemon-system", "is the session daemon"),
    ("virtlogd", "libvirt-daemon-system", "writes the consoles' files"),
    ("virsh", "libvirt-clients", "restores snapshots"),
    ("qemu-system-x86_64", "qemu-system-x86", "runs the machines"),
    ("rsync", "rsync", "synced folders"),
)


def findings() -> list[Finding]:
    """Programs and the plugin."""
    found = [_program(*row) for row in PROGRAMS]
    found.append(_plugin())
    return found


def require() -> None:
    """See that all is there.

    Raises:
        HostError: names each thing that is not.
    """
    missing = [finding for finding in findings() if finding.status == MISSING]
    if missing:
        raise HostError(
            "; ".join(f"{finding.name}: {finding.detail}" for finding in missing),
            right="lab doctor --install --for vagrant",
        )


def require_symbols(config: Path) -> None:
    """See that a kernel can run the box.

    Raises:
        HostError: names each symbol that it lacks.
    """
    lines = set(config.read_text(encoding="utf-8").splitlines())
    missing = [name for name in SYMBOLS if not {f"CONFIG_{name}=y", f"CONFIG_{name}=m"} & lines]
    if missing:
        raise HostError(
            "the kernel lacks what a machine of Vagrant's needs: " + ", ".join(missing),
            file=config,
            right="a kernel of lab.yaml has all of it",
        )


def session(ask: Callable[[Sequence[str]], str]) -> None:
    """See that the session daemon starts and answers.

    Args:
        ask: runs virsh with some words, and gives its output.

    Raises:
        HostError: it does not; with what it said.
    """
    try:
        ask(["version"])
    except LabError as error:
        raise HostError(
            f"libvirt's session daemon does not answer: {error}",
            right="look whether libvirtd and virtlogd can be run by this user",
        ) from error


def _program(name: str, package: str, why: str) -> Finding:
    path = shutil.which(name, path=None) or shutil.which(name, path="/usr/sbin:/sbin")
    if path is None:
        return Finding("vagrant", name, MISSING, f"not installed (package {package})", why)
    return Finding("vagrant", name, OK, path, why)


def _plugin() -> Finding:
    """Debian's plugin is a gem of the system; a person's own is in their VAGRANT_HOME."""
    why = "lets vagrant speak to libvirt"
    if shutil.which("vagrant") is None:
        return Finding("vagrant", PLUGIN, MISSING, "without vagrant there is no plugin", why)
    if any(GEMS.glob(f"*/specifications/{PLUGIN}-*.gemspec")):
        return Finding("vagrant", PLUGIN, OK, "Debian's", why)
    listed = run(["vagrant", "plugin", "list"], timeout=60, check=False).stdout
    for line in listed.splitlines():
        if line.startswith(f"{PLUGIN} "):
            return Finding("vagrant", PLUGIN, OK, line.split("(")[-1].split(",")[0], why)
    return Finding("vagrant", PLUGIN, MISSING, f"not installed (package {PLUGIN})", why)
