# SPDX-License-Identifier: GPL-2.0-only
"""A module tree's C, as the kernel's maintainers look at it.

checkpatch --strict reads the tree's own files; sparse and the compiler with
W=1 read them as they are built against one exact kernel.  What a tree excepts
stands in its lint.yaml, each with its reason; an exception that excepts
nothing is a finding, too.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from lab.errors import HostError
from lab.kernel.artifact import Kernel
from lab.kernel.checkpatch import Finding, checkpatch
from lab.kernel.make import MAKE_LOCK, environment
from lab.manifest import Entry, Names, Text, first_error
from lab.marked import load
from lab.modules.build import lay_lua, make_argv, mirror, variables
from lab.modules.tree import UPSTREAM, ModuleTree
from lab.process import run
from lab.progress import progress
from lab.store import Store

EXCEPTIONS = "lint.yaml"

_COMPILER = re.compile(r"^(?P<file>[^:\s]+):(?P<line>\d+):\d+: (?:warning|error): (?P<what>.*)$")
_NO_SPARSE = re.compile(r"C=\d specified, but \S+ is not available or not up to date")
_OBJTOOL = re.compile(r"^(?P<file>\S+\.o): warning: objtool: (?P<what>.*)$")


class Exception_(Entry):  # noqa: N801 - the name is taken
    """What checkpatch says and is not heard.

    Attributes:
        kind: as checkpatch --show-types prints it.
        files: globs, relative to the tree.
        reason: why that is right here.
    """

    kind: Text
    files: Names = ("*",)
    reason: Text


class _Exceptions(Entry):
    checkpatch: tuple[Exception_, ...] = ()


def lint(kernel: Kernel, tree: ModuleTree, store: Store) -> list[Finding]:
    """Everything that is wrong with a tree's C and is not excepted.

    Raises:
        UserError: lint.yaml is not as it should be.
        HostError: nothing was found, but this kernel's make did not run sparse.
        InfraError: checkpatch or make did not get to the end.
    """
    excepted = _read_exceptions(tree.path / EXCEPTIONS)
    with progress(f"checkpatch of {tree.name}"):
        said = list(_checkpatch(kernel, tree, store))
    used = set()
    findings = []
    for finding in said:
        fits = [one for one in excepted if _fits(one, finding)]
        used.update(fits)
        if not fits:
            findings.append(finding)
    findings += [_unused(tree, one) for one in excepted if one not in used]
    with progress(f"sparse and W=1 of {tree.name} for {kernel.name} {kernel.flavour}"):
        lines, work = _compile(kernel, tree, store)
    findings += findings_of(lines, work)
    if not findings and refused_sparse(lines):
        raise HostError(
            f"sparse did not read {tree.name}: {kernel.name} wants a newer one, and its make "
            "goes on without",
            right="lint against an older kernel, or install a newer sparse",
        )
    return findings


def _read_exceptions(file: Path) -> tuple[Exception_, ...]:
    if not file.exists():
        return ()
    raw = load(file)
    try:
        return _Exceptions.model_validate(raw).checkpatch
    except ValidationError as error:
        raise first_error(raw, error) from None


def _fits(one: Exception_, finding: Finding) -> bool:
    return one.kind == finding.kind and any(
        fnmatch.fnmatch(finding.file, pattern) for pattern in one.files
    )


def _unused(tree: ModuleTree, one: Exception_) -> Finding:
    where = one.where()
    return Finding(str(where.file.relative_to(tree.path)), where.line, one.kind,
                   "this exception excepts nothing: take it out")  # fmt: skip


def _sources(tree: ModuleTree) -> list[str]:
    return sorted(
        name
        for name in (str(path.relative_to(tree.path)) for path in tree.path.rglob("*.[chS]"))
        if not name.startswith(f"{UPSTREAM}/") and not name.endswith(".mod.c")
    )


def _checkpatch(kernel: Kernel, tree: ModuleTree, store: Store) -> Iterator[Finding]:
    files = [str(tree.path / name) for name in _sources(tree)]
    for finding in checkpatch(kernel.devel, ["--file", *files], store):
        yield replace(finding, file=finding.file.removeprefix(f"{tree.path}/"))


def _compile(kernel: Kernel, tree: ModuleTree, store: Store) -> tuple[list[str], Path]:
    """What make says with W=1 and C=2, and below which directory."""
    with store.scratch(f"lint-{tree.name}") as scratch:
        work = scratch / "tree"
        work.mkdir()
        mirror(tree, work)
        if tree.fetch_lua is not None:
            lay_lua(tree, scratch, work)
        words = {**variables(kernel, work), "M": str(work), "W": "1", "C": "2"}
        argv = make_argv(kernel, words, lock=scratch / MAKE_LOCK)
        finished = run(argv, env=environment(store), timeout=1800)
        return finished.stdout.splitlines() + finished.stderr.splitlines(), work


def refused_sparse(lines: Iterable[str]) -> bool:
    """Whether make found sparse too old; it then only warns.

    7.3 wants one that knows __typeof_unqual__; 0.6.4 (Debian 12) does not.
    """
    return any(_NO_SPARSE.search(line) for line in lines)


def findings_of(lines: Sequence[str], work: Path) -> list[Finding]:
    """What compiler, sparse and objtool say of a tree's own files, each once, in order."""
    return sorted(
        set(_warnings(lines, work)),
        key=lambda finding: (finding.file, finding.line),
    )


def _warnings(lines: Sequence[str], work: Path) -> Iterator[Finding]:
    for line in lines:
        match = _COMPILER.match(line) or _OBJTOOL.match(line)
        if match is None:
            continue
        file = match["file"].removeprefix(f"{work}/").removeprefix("./")
        # Upstream's style is upstream's; what the kernel's headers do is the kernel's.
        if file.startswith((f"{UPSTREAM}/", "/", "include/", "arch/")) and "objtool" not in line:
            continue
        number = int(match.groupdict().get("line") or 0)
        yield Finding(file, number, "objtool" if number == 0 else "W=1", match["what"])
