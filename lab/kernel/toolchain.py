# SPDX-License-Identifier: GPL-2.0-only
"""Which programs build a kernel, and exactly which versions of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lab.errors import HostError

Version = tuple[int, ...]

GNU = {"cc": "gcc", "ld": "ld", "objcopy": "objcopy"}
LLVM = {"cc": "clang", "ld": "ld.lld", "objcopy": "llvm-objcopy"}


@dataclass(frozen=True, kw_only=True)
class Toolchain:
    """What compiles and links.

    Attributes:
        llvm: clang and the LLVM tools rather than gcc and binutils.
        suffix: of LLVM's programs, such as "-19"; mostly empty.
        versions: program -> the first line of its --version.
        ccache: whether results of the compiler are kept.
    """

    llvm: bool
    suffix: str
    versions: Mapping[str, str]
    ccache: bool

    @property
    def name(self) -> str:
        """For directories: "gcc", "llvm" or "llvm-19"."""
        return f"llvm{self.suffix}" if self.llvm else "gcc"

    @property
    def variables(self) -> dict[str, str]:
        """What make is told."""
        compiler = f"clang{self.suffix}" if self.llvm else "gcc"
        given = {"LLVM": self.suffix or "1"} if self.llvm else {}
        if self.ccache:
            given |= {"CC": f"ccache {compiler}", "HOSTCC": f"ccache {compiler}"}
        return given


def find_toolchain(*, llvm: bool = False, least: Mapping[str, Version]) -> Toolchain:
    """The toolchain for one kernel.

    Args:
        least: as ``minimums`` gives it.

    Raises:
        HostError: a program is missing, or older than the kernel asks for.
    """
    suffix = _llvm_suffix(least["llvm"]) if llvm else ""
    names = {role: name + suffix for role, name in (LLVM if llvm else GNU).items()}
    versions = {role: _first_line(name) for role, name in names.items()}
    versions |= {name: _first_line(name) for name in ("pahole", "make")}
    if not llvm and _numbers(versions["cc"]) < least["gcc"]:
        raise HostError(
            f"this kernel wants gcc {_dotted(least['gcc'])} or newer, here is {versions['cc']}",
            right="install a newer one, or build an older kernel",
        )
    return Toolchain(
        llvm=llvm, suffix=suffix, versions=versions, ccache=shutil.which("ccache") is not None
    )


def minimums(tree: Path) -> dict[str, Version]:
    """The least versions that a source builds with, "gcc" and "llvm", as it says itself."""
    return {tool: _minimum(tree, tool) for tool in ("gcc", "llvm")}


def _minimum(tree: Path, tool: str) -> Version:
    script = tree / "scripts" / "min-tool-version.sh"
    try:
        done = subprocess.run(
            ["sh", str(script), tool], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    return _numbers(done.stdout)


def _llvm_suffix(least: Version) -> str:
    """Empty if plain clang will do; else that of the newest LLVM that will."""
    for suffix in ["", *(f"-{major}" for major in range(40, 10, -1))]:
        if not all(shutil.which(name + suffix) for name in LLVM.values()):
            continue
        if _numbers(_first_line(f"clang{suffix}")) >= least:
            return suffix
    raise HostError(
        f"this kernel wants clang and lld {_dotted(least)} or newer, and there are none",
        right="install newer ones (clang-NN, lld-NN and llvm-NN), or build with gcc",
    )


@cache
def _first_line(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        from lab.doctor import package_of

        package = package_of(program)
        raise HostError(
            f"the program `{program}` is not installed",
            right=f"install the Debian package {package}" if package else "install it",
        )
    done = subprocess.run(
        [path, "--version"], capture_output=True, text=True, timeout=30, check=False
    )
    return (done.stdout or done.stderr).split("\n")[0].strip()


def _numbers(text: str) -> Version:
    found = re.search(r"\d+(?:\.\d+)+", re.sub(r"\([^)]*\)", "", text)) or re.search(r"\d+", text)
    return tuple(int(part) for part in found[0].split(".")) if found else (0,)


def _dotted(version: Version) -> str:
    return ".".join(str(part) for part in version)
