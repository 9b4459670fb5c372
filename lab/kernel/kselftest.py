# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own selftests (tools/testing/selftests), built on the host for the guests."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError, UserError
from lab.kernel.build import compile_failure
from lab.kernel.make import ARCH, environment, processors
from lab.kernel.recipe import KernelRecipe
from lab.kernel.toolchain import find_toolchain
from lab.process import ProgramFailed, run
from lab.progress import note, progress
from lab.store import Json, Store, remove_tree

FORMAT = 2
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


def load_selftests(key: str, path: Path) -> Selftests:
    """The selftests of an artifact."""
    lines = (path / LIST).read_text().split()
    return Selftests(key=key, path=path, programs=tuple(lines))


def build_selftests(recipe: KernelRecipe, targets: Sequence[str], *, store: Store) -> Selftests:
    """Build the selftests below some directories of a kernel's source.

    Args:
        targets: such as "net/netfilter", below tools/testing/selftests.

    Raises:
        UserError: there is no such target.
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
            output = hot / "tree"
            remove_tree(output)  # small, and its makefiles know little of what is stale
            output.mkdir()
            _make(tree.path, output, content, targets, store=store, log=hot / "build.log")

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


def _make(
    source: Path, output: Path, content: Path, targets: Sequence[str], *, store: Store, log: Path
) -> None:
    common = (f"ARCH={ARCH}", f"O={output}", f"-j{processors()}")
    log.unlink(missing_ok=True)
    with progress(f"build selftests {' '.join(targets)}"):
        try:
            run(("make", "-C", source, *common, "headers"), env=environment(store), log=log)
            run(
                (
                    # Without -i nothing of a directory is installed if one program of it does
                    # not compile, as net/tls.c of 6.12.117 does not.
                    *("make", "-i", "-C", source / SELFTESTS, *common),
                    f"KBUILD_OUTPUT={output}",
                    *(f"TARGETS={' '.join(targets)}", "SKIP_TARGETS="),
                    *(f"INSTALL_PATH={content}", "install"),
                ),
                env=environment(store),
                log=log,
            )
        except ProgramFailed:
            raise compile_failure(what=_what(targets), source=source, log=log) from None
    _tell_missing(content, targets, source=source, log=log)


def _what(targets: Sequence[str]) -> str:
    return f"the selftests {' '.join(targets)}"


def _tell_missing(content: Path, targets: Sequence[str], *, source: Path, log: Path) -> None:
    listed = (content / LIST).read_text().split()
    missing = [name for name in listed if not (content / name.replace(":", "/")).exists()]
    if not missing:
        return
    failure = compile_failure(what=_what(targets), source=source, log=log)
    # What the host lacks, room on its disk above all, is no fault of a program's.
    if missing == listed or isinstance(failure, HostError):
        raise failure
    note(f"not built, see {log}: {', '.join(missing)}")
