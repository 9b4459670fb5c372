# SPDX-License-Identifier: GPL-2.0-only
"""What checkpatch --strict says, the one of the kernel's own tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import InfraError
from lab.kernel.series import Patch, PatchSeries
from lab.process import ProgramFailed, run
from lab.store import Store

_SAID = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): \w+:(?P<kind>[A-Z_0-9]+): (?P<what>.*)$")


@dataclass(frozen=True)
class Finding:
    """Something that a maintainer would ask to change."""

    file: str
    line: int
    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.kind}: {self.what}"


def checkpatch(tree: Path, words: Sequence[str], store: Store) -> Iterator[Finding]:
    """Have it read files or patches; the words come after the options that it always has.

    Args:
        tree: a kernel's source, or what modules are built against.

    Raises:
        InfraError: it did not get to the end.
    """
    argv = ["perl", str(tree / "scripts/checkpatch.pl"), "--strict", "--no-tree"]
    argv += ["--show-types", "--terse", *words]
    try:
        # It leaves a list of names in the directory that it is run in.
        with store.scratch("checkpatch") as scratch:
            said = run(argv, cwd=scratch, timeout=600).stdout
    except ProgramFailed as error:
        if error.finished.status != 1:
            raise
        said = error.finished.stdout
        if "total: " not in said:
            raise InfraError(f"checkpatch did not get to the end: {said[-300:]}") from None
    for line in said.splitlines():
        if match := _SAID.match(line):
            yield Finding(match["file"], int(match["line"]), match["kind"], match["what"])


def check_patches(tree: Path, series: PatchSeries, store: Store) -> list[Finding]:
    """What it says of each patch of a series, where the user has the patch."""
    if not series.patches:
        return []
    with store.scratch("patches") as scratch:
        copies = {scratch / f"{number}.patch": one for number, one in enumerate(series.patches)}
        for copy, patch in copies.items():
            copy.write_text(patch.text, encoding="utf-8")
        said = list(checkpatch(tree, [str(copy) for copy in copies], store))
    return [_at_home(finding, copies[Path(finding.file)]) for finding in said]


def _at_home(finding: Finding, patch: Patch) -> Finding:
    line = patch.line(finding.line)
    # What was decoded, or comes out of a repository, has no line of its own.
    where = str(patch.file) if line is not None else f"{patch.file}: {patch.name}"
    return Finding(where, finding.line if line is None else line, finding.kind, finding.what)
