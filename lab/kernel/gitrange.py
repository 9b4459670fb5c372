# SPDX-License-Identifier: GPL-2.0-only
"""Patches that are commits: a range of a git repository."""

from __future__ import annotations

from pathlib import Path

from lab.errors import UserError
from lab.kernel.series import PatchSeries, make_patch
from lab.paths import expand
from lab.sources.git import git


def load_range(text: str) -> PatchSeries:
    """The commits of ``A..B``, oldest first; ``DIRECTORY:A..B`` in another repository.

    Raises:
        UserError: no such repository or commit, an empty range, a merge in it.
    """
    directory, commits = _parse(text)
    for end in commits.split("..", 1):
        found = git(
            "rev-parse",
            "--verify",
            "--quiet",
            f"{end or 'HEAD'}^{{commit}}",
            directory=directory,
            check=False,
        )
        if found.status != 0:
            raise UserError(
                f"there is no commit `{end}` in {directory}, so `{text}` is no range of it",
                right="look at `git log` there, or run `git fetch`",
            )
    listed = git(
        "rev-list", "--reverse", "--topo-order", "--parents", commits, "--", directory=directory
    ).stdout.splitlines()
    if not listed:
        raise UserError(f"the range `{text}` holds no commit", right="its older end stands first")
    for line in listed:
        commit, *parents = line.split()
        if len(parents) > 1:
            raise UserError(
                f"the range `{text}` holds the merge {commit[:12]}",
                right="a series is linear; rebase it, or give the tree itself with --kernel",
            )
    diffs = {commit: _diff(directory, commit) for commit in (line.split()[0] for line in listed)}
    patches = tuple(
        make_patch(name=_name(directory, commit), file=directory, text=diff, offset=None)
        for commit, diff in diffs.items()
        if diff  # an empty commit changes nothing
    )
    return PatchSeries(name=text, patches=patches)


def _parse(text: str) -> tuple[Path, str]:
    directory, colon, commits = text.rpartition(":")
    where = expand(directory) if colon else Path()
    where = where.absolute()
    if "..." in commits:
        raise UserError(
            f"`{text}` is a symmetric difference, which has no order", right="write A..B"
        )
    if not where.is_dir():
        raise UserError(f"`{text}` names a repository that does not exist", file=where)
    if git("rev-parse", "--git-dir", directory=where, check=False).status != 0:
        raise UserError(f"is no git repository, so `{text}` is no range of it", file=where)
    return where, commits


def _name(directory: Path, commit: str) -> str:
    said = git(
        "show", "--no-patch", "--format=%h %s", "--abbrev=12", commit, "--", directory=directory
    )
    return said.stdout.strip()


def _diff(directory: Path, commit: str) -> str:
    # The user's own diff settings (prefixes, renames, external programs) must
    # not decide what is built.
    return git(
        "-c",
        "diff.noprefix=false",
        "-c",
        "diff.mnemonicPrefix=false",
        "diff-tree",
        "--root",
        "-p",
        "--no-renames",
        "--binary",
        "--full-index",
        "--no-ext-diff",
        "--no-textconv",
        "--no-color",
        "--unified=3",
        "--src-prefix=a/",
        "--dst-prefix=b/",
        "--no-commit-id",
        commit,
        "--",
        directory=directory,
    ).stdout
