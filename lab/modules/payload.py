# SPDX-License-Identifier: GPL-2.0-only
"""The payload disk: modules, scripts and commands that are laid over the guest's root.

A module tree puts more than modules on it by where its files stand:

    lib/**/*.lua     /usr/lib/modules/lua/
    examples/**      /usr/lib/modules/lua/examples/
    tools/bin/*      executables: /usr/sbin/
    tools/Makefile   `make -C tools install DESTDIR=... PREFIX=/usr`
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab.errors import KernelError
from lab.kernel.artifact import Kernel
from lab.kernel.compiler_errors import first_error
from lab.kernel.make import strict
from lab.process import ProgramFailed, run

LUA_PATH = "usr/lib/modules/lua"
UUID = "00000000-0000-4000-8000-6c7561746b21"
"""The same for each payload: equal trees must make equal images."""


def place_module(module: Path, target: Path) -> Path:
    """A copy without DWARF, which the guest's kernel cannot read anyway; BTF stays."""
    target.parent.mkdir(parents=True, exist_ok=True)
    run(["objcopy", "--strip-debug", module, target])
    return target


def install_extras(source: Path, tree: Path, *, log: Path) -> None:
    """Lay what a module tree has besides modules.

    Raises:
        KernelError: its tools do not compile.
    """
    _copy(source / "lib", tree / LUA_PATH, pattern="*.lua")
    _copy(source / "examples", tree / LUA_PATH / "examples", pattern="*")
    for tool in sorted((source / "tools/bin").glob("*")):
        if tool.is_file() and os.access(tool, os.X_OK):
            _copy_file(tool, tree / "usr/sbin" / tool.name)
    if (source / "tools/Makefile").is_file():
        _install_tools(source / "tools", tree, log=log)


def make_payload(kernel: Kernel, tree: Path, image: Path) -> None:
    """Add the kernel's own modules, index them all, and pack the tree."""
    modules = tree / "usr/lib/modules" / kernel.version
    modules.mkdir(parents=True, exist_ok=True)
    for name in ("modules.builtin", "modules.builtin.modinfo", "modules.order"):
        if (kernel.modules / name).is_file():
            shutil.copy(kernel.modules / name, modules / name)
    for module in sorted(kernel.modules.glob("kernel/**/*.ko")):
        place_module(module, modules / module.relative_to(kernel.modules))
    run(["depmod", "-b", tree / "usr", kernel.version], timeout=120)
    run(["mkfs.erofs", "-T0", "--all-root", f"-U{UUID}", image, tree], timeout=300)


def _install_tools(tools: Path, tree: Path, *, log: Path) -> None:
    log.unlink(missing_ok=True)
    try:
        run(
            ["make", "-C", tools, "install", f"DESTDIR={tree}", "PREFIX=/usr"],
            env={**strict(), "LC_ALL": "C"},
            log=log,
            timeout=600,
        )
    except ProgramFailed as error:
        found = first_error(log.read_text(errors="replace"), source=tools)
        raise KernelError(
            f"its tools do not build: {found.text if found else error.finished.tail(8)}",
            file=tools / (found.file if found and found.file else "Makefile"),
            line=found.line if found else None,
        ) from None


def _copy(source: Path, target: Path, *, pattern: str) -> None:
    for file in sorted(source.rglob(pattern)):
        if file.is_file():
            _copy_file(file, target / file.relative_to(source))


def _copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
