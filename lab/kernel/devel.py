# SPDX-License-Identifier: GPL-2.0-only
"""The tree that external modules are built against.

Source and object tree flattened into one, as distributions do for their
header packages: all that ``make -C devel M=...`` reads, with vmlinux so that
modules get BTF, and nothing that points back to where the kernel was built.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

# Whole directories of the source; of arch/ only our own architecture's.
SOURCE_TREES = ("include", "scripts", "arch/x86/include", "arch/x86/tools", "arch/x86/scripts")
SOURCE_FILES = ("Makefile", "Kbuild", "Kconfig", "tools/objtool/sync-check.sh")
MAKEFILES = ("arch/x86", "arch/x86/entry/syscalls", "arch/x86/um")
"""Directories whose Makefile* and Kbuild* are read although their sources are not."""

OBJECT_TREES = ("include/generated", "arch/x86/include/generated", "scripts")
OBJECT_FILES = (
    ".config",
    "Module.symvers",
    "System.map",
    "modules.order",
    "modules.builtin",
    "include/config/auto.conf",
    "include/config/kernel.release",
    "tools/objtool/objtool",
    "tools/bpf/resolve_btfids/resolve_btfids",
    "arch/x86/tools/relocs",
)

# Products of the build that no later make looks at.
JUNK = re.compile(r"\..*\.cmd|.*\.[aos]|.*\.pyc|\.gitignore|vmlinux-gdb\.py|constants\.py")
SKIPPED = (
    "scripts/__pycache__",
    "scripts/coccinelle",
    "scripts/dtc/include-prefixes",  # links into other architectures
    "scripts/gdb/linux",
    "scripts/kconfig",  # the configuration is final
)


def publish_devel(*, source: Path, output: Path, vmlinux: Path, devel: Path) -> None:
    """Make the tree.

    Args:
        source: the patched source.
        output: the object tree.
        vmlinux: already published; the tree's own is a hard link to it.
        devel: where to; does not exist yet.
    """
    devel.mkdir()
    # Files of the source are replaced, never written in place (see mirror.py),
    # so a hard link keeps today's content; the object tree's may be rewritten.
    for name in _listed(source, SOURCE_TREES, SOURCE_FILES):
        _place(source / name, devel / name, link=True)
    for directory in MAKEFILES:
        for makefile in sorted((source / directory).glob("Makefile*")):
            _place(makefile, devel / directory / makefile.name, link=True)
    for name in _listed(output, OBJECT_TREES, OBJECT_FILES):
        _place(output / name, devel / name, link=False)
    os.link(vmlinux, devel / "vmlinux")


def _listed(top: Path, trees: tuple[str, ...], files: tuple[str, ...]) -> Iterator[str]:
    for tree in trees:
        yield from _walk(top, tree)
    for file in files:
        if (top / file).is_file():
            yield file


def _walk(top: Path, directory: str) -> Iterator[str]:
    if directory in SKIPPED or not (top / directory).is_dir():
        return
    with os.scandir(top / directory) as entries:
        for entry in entries:
            name = f"{directory}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(top, name)
            elif not JUNK.fullmatch(entry.name):
                yield name


def _place(source: Path, target: Path, *, link: bool) -> None:
    """Put a file in place with its time and mode; what a link points to rather than the link."""
    if not target.parent.is_dir():
        target.parent.mkdir(parents=True)
    target.unlink(missing_ok=True)
    if source.is_symlink():
        if source.exists():
            shutil.copy2(source, target)
        return
    if link:
        try:
            os.link(source, target)
        except OSError:  # another disk, too many links, somebody else's file
            pass
        else:
            return
    shutil.copy2(source, target)
