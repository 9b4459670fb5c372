# SPDX-License-Identifier: GPL-2.0-only
"""Apply patches, strictly: every line of context as it is, nothing guessed.

Only a hunk's place may differ, for which its context vouches; where it does,
that is said.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab.errors import UserError
from lab.kernel.refusal import explain
from lab.kernel.series import Patch, PatchSeries
from lab.process import Finished, run
from lab.progress import progress
from lab.sources.git import OF_ANOTHER

OFFSET = re.compile(r"Hunk #(\d+) succeeded at (\d+) \(offset (-?\d+) lines?\)")
CHECKING = re.compile(r"(?:Checking patch|Applied patch) (.+?)(?:\.\.\.| cleanly\.)$")


@dataclass(frozen=True, kw_only=True)
class Shifted:
    """A hunk that applied at another line than the patch says."""

    patch: str
    file: str
    hunk: int
    lines: int

    def __str__(self) -> str:
        return f"patch {self.patch}: hunk {self.hunk} of {self.file} is {self.lines:+d} lines off"


def touched(series: PatchSeries) -> set[str]:
    """Every path that a series reads or writes."""
    return {file for patch in series.patches for file in patch.files}


def stage(
    series: PatchSeries, base: Callable[[str], Path | None], into: Path, *, version: str
) -> list[Shifted]:
    """Make the files that a series touches, as they are with all of it applied.

    Args:
        base: where a file of the unpatched tree lies; None if it is not in it.
        into: an empty directory; afterwards a touched file that is not in it is
            not in the patched tree either.
        version: the kernel's, for what the user is told.

    Raises:
        UserError: a patch does not apply.
    """
    for name in sorted(touched(series)):
        file = base(name)
        if file is not None:
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target, follow_symlinks=False)
    shifted: list[Shifted] = []
    total = len(series.patches)
    if not total:
        return shifted
    with progress(f"apply patches {series.name}", total=total) as step:
        for patch in series.patches:
            step.update(detail=patch.name)
            shifted += _apply(patch, into, version=version)
            step.advance()
    return shifted


def _apply(patch: Patch, tree: Path, *, version: str) -> list[Shifted]:
    finished = run(
        (
            *("git", "apply", "--verbose", "--whitespace=nowarn", f"-p{patch.strip}"),
            *(("--reverse",) if patch.reverse else ()),
            "-",
        ),
        cwd=tree,
        env={
            **OF_ANOTHER,
            # The tree is no repository and must not be taken for a part of one,
            # nor must the user's settings decide how strict git is.
            "GIT_CEILING_DIRECTORIES": str(tree.parent),
            "GIT_DIR": str(tree / ".no-repository"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "LC_ALL": "C",
        },
        input=patch.text.encode(),
        check=False,
    )
    if finished.status != 0:
        raise explain(patch, tree, version=version, said=finished.stderr)
    return _shifted(patch, finished)


def _shifted(patch: Patch, finished: Finished) -> list[Shifted]:
    found = []
    file = ""
    for line in finished.stderr.splitlines():
        if checking := CHECKING.match(line):
            file = checking[1]
        elif offset := OFFSET.search(line):
            found.append(
                Shifted(patch=patch.name, file=file, hunk=int(offset[1]), lines=int(offset[3]))
            )
    return found


def refuse_links(series: PatchSeries, tree: Path) -> None:
    """Refuse patches that reach a file through a symbolic link of the tree.

    Raises:
        UserError: one does.
    """
    for patch in series.patches:
        for name in patch.files:
            for parent in PurePosixPath(name).parents:
                if parent.parts and (tree / parent).is_symlink():
                    raise UserError(
                        f"patch {patch.name} reaches `{name}` through the symbolic link `{parent}`",
                        file=patch.file,
                        right="name the file itself",
                    )
