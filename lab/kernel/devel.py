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

OBJECT_TREES = ("include", "arch/x86/include/generated", "scripts")
OBJECT_FILES = (
    ".config",
    "Module.symvers",
    "System.map",
    "modules.order",
    "modules.builtin",
    "tools/objtool/objtool",
    "tools/bpf/resolve_btfids/resolve_btfids",
    ".module-common.o",
    "arch/x86/tools/relocs",
)

# Products of the build that no later make looks at, or links out of the tree.
JUNK = re.compile(r"\..*\.cmd|\..*\.d|.*\.a|vmlinux-gdb\.py|constants\.py|.*\.pyc|\.gitignore")
KEPT_OBJECTS = (".module-common.o",)
SKIPPED = (
    "scripts/gdb/linux",
    "scripts/kconfig/tests",
    "scripts/dtc/include-prefixes",
    "scripts/coccinelle",
    "scripts/__pycache__",
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
    for top, trees, files in (
        (source, SOURCE_TREES, SOURCE_FILES),
        (output, OBJECT_TREES, OBJECT_FILES),
    ):
        for tree in trees:
            _copy_tree(top, tree, devel)
        for file in files:
            if (top / file).is_file():
                _copy(top / file, devel / file)
    for directory in MAKEFILES:
        for makefile in sorted((source / directory).glob("Makefile*")):
            _copy(makefile, devel / directory / makefile.name)
    os.link(vmlinux, devel / "vmlinux")


def _copy_tree(top: Path, tree: str, devel: Path) -> None:
    for name in _walk(top, tree):
        _copy(top / name, devel / name)


def _walk(top: Path, directory: str) -> Iterator[str]:
    if directory in SKIPPED or not (top / directory).is_dir():
        return
    with os.scandir(top / directory) as entries:
        for entry in entries:
            name = f"{directory}/{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(top, name)
            elif _is_wanted(entry.name):
                yield name


def _is_wanted(name: str) -> bool:
    if name.endswith(".o"):
        return name in KEPT_OBJECTS
    return not JUNK.fullmatch(name)


def _copy(source: Path, target: Path) -> None:
    """A copy with its time and mode; a link within the tree becomes what it points to."""
    if source.is_symlink() and not source.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.unlink()
    shutil.copy2(source, target)
