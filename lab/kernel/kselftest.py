# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own selftests (tools/testing/selftests), built on the host for the guests."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError, KernelError, UserError
from lab.kernel.build import compile_failure
from lab.kernel.make import ARCH, MAKE_LOCK, environment, guard, processors, settled
from lab.kernel.recipe import KernelRecipe
from lab.kernel.toolchain import Toolchain, find_toolchain
from lab.process import ProgramFailed, run
from lab.progress import note, progress
from lab.store import Json, Store, remove_tree

FORMAT = 3
SELFTESTS = "tools/testing/selftests"
LIST = "kselftest-list.txt"

USUAL_LIMIT = 45.0
"""Seconds for a program whose directory says nothing (kselftest/runner.sh)."""


@dataclass(frozen=True, kw_only=True)
class Selftests:
    """Installed selftests of one source.

    Attributes:
        programs: "net/netfilter:nft_nat.sh", as run_kselftest.sh knows them.
    """

    key: str
    path: Path
    programs: tuple[str, ...]

    def limit(self, program: str) -> float:
        """Seconds that the kernel itself gives a program; 0 for no limit at all."""
        settings = self.path / program.partition(":")[0] / "settings"
        if settings.exists():
            found = re.search(r"^timeout=(\d+)", settings.read_text(), re.MULTILINE)
            if found:
                return float(found[1])
        return USUAL_LIMIT

    def command(self, program: str, seconds: float) -> str:
        """What runs a program where the selftests are unpacked, for so many seconds at most."""
        run = f"./run_kselftest.sh -t {program}"
        if "--override-timeout" in (self.path / "run_kselftest.sh").read_text():
            return f"{run} -o {seconds:.0f}"
        # Older scripts go by the directory's settings alone, and refuse what they do not know.
        settings = f"{program.partition(':')[0]}/settings"
        return f"echo timeout={seconds:.0f} >{settings} && {run}"


def load_selftests(key: str, path: Path) -> Selftests:
    """The selftests of an artifact."""
    lines = (path / LIST).read_text().split()
    return Selftests(key=key, path=path, programs=tuple(lines))


def build_selftests(recipe: KernelRecipe, targets: Sequence[str], *, store: Store) -> Selftests:
    """Build the selftests below some directories of a kernel's source.

    Args:
        targets: such as "net/netfilter", below tools/testing/selftests.

    Raises:
        UserError: there is no such target, or no program in any.
        KernelError: none compiles; says the first error.
        HostError: a compiler is missing, or the disk is full.
    """
    refuse_odd(targets)
    toolchain = find_toolchain(llvm=recipe.llvm, least=recipe.least)
    inputs: dict[str, Json] = {
        "format": FORMAT,
        "source": recipe.source.key,
        "patches": [patch.key for patch in recipe.series.patches],
        "targets": sorted(set(targets)),
        "compiler": toolchain.versions["cc"],
    }

    def build(content: Path) -> None:
        with store.hot("kselftest", recipe.hot_name) as hot, recipe.open_source() as tree:
            for target in targets:
                _refuse_unknown(target, tree.path)
            with settled(hot / MAKE_LOCK):
                remove_tree(hot / "tree")  # small, and its makefiles know little of what is stale
                (hot / "tree").mkdir()
            _Builder(tree.path, toolchain, store, hot=hot).install(targets, content)

    artifact = store.make("kselftest", inputs, build)
    return load_selftests(artifact.key, artifact.path)


def refuse_odd(targets: Sequence[str]) -> None:
    """See that targets are directories below the selftests, whatever kernel it will be.

    Raises:
        UserError: one is empty, or leads out.
    """
    for target in targets:
        if not target or target.startswith("/") or {".", ".."} & set(target.split("/")):
            raise UserError(
                f"`{target}` is no directory of selftests",
                right=f"one below {SELFTESTS}, such as net/netfilter",
            )


def _refuse_unknown(target: str, tree: Path) -> None:
    top = tree / SELFTESTS
    if (top / target / "Makefile").is_file():
        return
    known = sorted(
        str(Path(directory).relative_to(top))
        for directory, _, names in os.walk(top)
        if "Makefile" in names and directory != str(top)
    )
    near = [name for name in known if target.rpartition("/")[2] in name][:8]
    raise UserError(
        f"this kernel has no selftests `{target}`",
        right=f"one of {', '.join(near or known[:12])}, ...: directories of {SELFTESTS}",
    )


class _Builder:
    """One build in one working directory, which nobody else uses meanwhile."""

    def __init__(self, source: Path, toolchain: Toolchain, store: Store, *, hot: Path) -> None:
        self.source = source
        self.toolchain = toolchain
        self.store = store
        self.output = hot / "tree"
        self.lock = hot / MAKE_LOCK
        self.log = hot / "build.log"

    def install(self, targets: Sequence[str], content: Path) -> None:
        """Build what the targets have, and lay it where it can be taken from."""
        self.log.unlink(missing_ok=True)
        with progress(f"build selftests {' '.join(targets)}"):
            try:
                self._make("-C", str(self.source), "headers")
                self._make(
                    # Without -i nothing of a directory is installed if one program of it does
                    # not compile, as net/tls.c of 6.12.117 does not.
                    *("-i", "-C", str(self.source / SELFTESTS)),
                    f"KBUILD_OUTPUT={self.output}",
                    *(f"TARGETS={' '.join(targets)}", "SKIP_TARGETS="),
                    *(f"INSTALL_PATH={content}", "install"),
                )
            except ProgramFailed:
                raise compile_failure(
                    what=_what(targets), source=self.source, log=self.log
                ) from None
        _tell_missing(content, targets, source=self.source, log=self.log)

    def _make(self, *words: str) -> None:
        argv = [*guard(self.lock), "make", f"ARCH={ARCH}", f"O={self.output}", f"-j{processors()}"]
        if self.toolchain.llvm:
            # Not CC: it may begin with ccache, and some makefiles take it for one word.
            argv.append(f"LLVM={self.toolchain.variables['LLVM']}")
        run([*argv, *words], env=environment(self.store), log=self.log)


def _what(targets: Sequence[str]) -> str:
    return f"the selftests {' '.join(targets)}"


def _tell_missing(content: Path, targets: Sequence[str], *, source: Path, log: Path) -> None:
    listed = (content / LIST).read_text().split()
    missing = [name for name in listed if not (content / name.replace(":", "/")).exists()]
    if listed and not missing:
        return
    failure = compile_failure(what=_what(targets), source=source, log=log)
    if not listed and isinstance(failure, KernelError) and failure.line is None:
        raise UserError(
            f"there is no program in {_what(targets)}",
            right=f"targets that have some for {ARCH}; what make said is in {log}",
        )
    # What the host lacks, room on its disk above all, is no fault of a program's.
    if missing == listed or isinstance(failure, HostError):
        raise failure
    note(f"not built, see {log}: {', '.join(missing)}")
