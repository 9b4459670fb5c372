# SPDX-License-Identifier: GPL-2.0-only
"""What the readers of modules' C said, and whether they read at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.errors import HostError, InfraError
from lab.kernel.artifact import Kernel
from lab.modules import lint as room
from lab.modules.lint import Finding, findings_of, lint, refused_sparse
from lab.modules.tree import ModuleTree
from lab.store import Store

WORK = Path("/build/tree")

REFUSED = "/src/Makefile:1311: C=2 specified, but sparse is not available or not up to date"

SAID = f"""\
make[1]: Entering directory '{WORK}'
  CC [M]  core/a.o
{WORK}/core/a.c:12:7: warning: unused variable 'x' [-Wunused-variable]
core/a.c:12:7: warning: unused variable 'x' [-Wunused-variable]
./core/a.c:3:1: error: incompatible types in comparison expression
include/linux/list.h:3:1: warning: the kernel's own
lua/upstream/lapi.c:9:2: warning: upstream's own
/usr/include/x.h:1:1: warning: somebody's
{WORK}/lua/upstream/lapi.o: warning: objtool: f() falls through to next function g()
"""


def test_only_the_trees_own_files_count_and_each_once() -> None:
    assert findings_of(SAID.splitlines(), WORK) == [
        Finding("core/a.c", 3, "W=1", "incompatible types in comparison expression"),
        Finding("core/a.c", 12, "W=1", "unused variable 'x' [-Wunused-variable]"),
        Finding("lua/upstream/lapi.o", 0, "objtool", "f() falls through to next function g()"),
    ]


def test_make_that_goes_on_without_sparse_is_noticed() -> None:
    assert refused_sparse([REFUSED])
    assert not refused_sparse(SAID.splitlines())


@pytest.mark.parametrize(
    ("perl", "found"),
    [
        ("exit 0;", 0),  # with --terse it says nothing of clean files
        ('print "$ARGV[-1]:3: WARNING:SPACING: no\\ntotal: 0 errors, 1 warnings\\n"; exit 1;', 1),
    ],
)
def test_checkpatch_that_ended_well(tmp_path: Path, perl: str, found: int) -> None:
    kernel, tree = checked(tmp_path, perl)
    assert [one.file for one in room._checkpatch(kernel, tree, Store(tmp_path / "s"))] == [
        "a.c"
    ] * found


@pytest.mark.parametrize("perl", ["exit 1;", 'die "no such file";'])
def test_checkpatch_that_did_not(tmp_path: Path, perl: str) -> None:
    kernel, tree = checked(tmp_path, perl)
    with pytest.raises(InfraError):
        list(room._checkpatch(kernel, tree, Store(tmp_path / "s")))


def checked(tmp_path: Path, perl: str) -> tuple[Kernel, ModuleTree]:
    kernel = Kernel(name="7.3", version="7.3.4", flavour="default", key="k", path=tmp_path)
    script = kernel.devel / "scripts/checkpatch.pl"
    script.parent.mkdir(parents=True)
    script.write_text(perl)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a.c").touch()
    return kernel, ModuleTree(name="mine", path=tmp_path / "tree", key="t")


def linted(lines: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    monkeypatch.setattr(room, "_checkpatch", lambda *_: [])
    monkeypatch.setattr(room, "_compile", lambda *_: (list(lines), WORK))
    kernel = Kernel(name="7.3", version="7.3.4", flavour="default", key="k", path=tmp_path)
    return lint(kernel, ModuleTree(name="mine", path=tmp_path, key="t"), Store(tmp_path / "store"))


def test_nothing_to_say_is_not_said_where_sparse_did_not_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not linted(["  CC [M]  core/a.o"], tmp_path, monkeypatch)
    with pytest.raises(HostError, match=r"sparse did not read mine: 7\.3 wants a newer one"):
        linted([REFUSED, "  CC [M]  core/a.o"], tmp_path, monkeypatch)
    # What the others found comes first.
    assert linted([REFUSED, "core/a.c:1:1: warning: x"], tmp_path, monkeypatch)


def test_exception_without_use_is_told_with_its_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lint.yaml").write_text(
        "checkpatch:\n  - kind: SPACING\n    files: [a.c]\n    reason: none\n"
    )
    (found,) = linted([], tmp_path, monkeypatch)
    assert (found.file, found.line, found.kind) == ("lint.yaml", 2, "SPACING")
