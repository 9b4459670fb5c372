# SPDX-License-Identifier: GPL-2.0-only
"""A kernel's source as a commit of a git tree, local or remote."""

from __future__ import annotations

import re
from pathlib import Path

from lab.errors import HostError, UserError
from lab.process import ProgramFailed
from lab.progress import progress
from lab.seal import digest
from lab.sources.git import git, of_remotes
from lab.store import Json, Store

WHOLE = "--depth=2147483647"
"""git's way to say all of the history, also of what was fetched without it before."""

COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def is_remote(text: str) -> bool:
    """Whether a git tree is named by URL (also ``host:path``) rather than by path."""
    return "://" in text or bool(re.match(r"[^/]+:", text))


def inputs(*, commit: str) -> dict[str, Json]:
    """What decides the content of the tree."""
    return {"git": commit}


def resolve(*, repository: Path | str, ref: str, who: str) -> str:
    """The commit that a tag, branch or (abbreviated) commit is just now.

    Args:
        repository: a path, or a URL as text.
        who: who names it: "lab.yaml:12".

    Raises:
        UserError: no such repository or ref.
        HostError: the remote cannot be reached.
    """
    if isinstance(repository, str):
        return _resolve_remote(repository, ref, who=who)
    check_repository(repository, who=who)
    found = git(
        *("rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}"),
        directory=repository,
        check=False,
    )
    if found.status != 0:
        raise UserError(
            f"{who} names the ref `{ref}`, which the git tree {repository} does not have",
            right="name a branch, tag or commit of it, or run `git fetch` there",
        )
    return found.stdout.strip()


def check_repository(repository: Path, *, who: str) -> None:
    """Refuse what is no git tree."""
    if not repository.is_dir():
        raise UserError(f"{who} names a git tree that is not there", file=repository)
    if git("rev-parse", "--git-dir", directory=repository, check=False).status != 0:
        raise UserError(f"{who} names a git tree, but this is none", file=repository)


def export(into: Path, *, repository: Path | str, ref: str, commit: str, store: Store) -> None:
    """Write a commit's files into an empty directory; the repository stays untouched.

    Raises:
        UserError: the repository no longer has the commit.
        HostError: the remote cannot be reached.
    """
    if isinstance(repository, Path):
        _checkout(repository, commit, into, store=store)
        return
    with store.hot("git", digest(repository.encode())[:20]) as bare:
        if not (bare / "HEAD").exists():
            git("init", "--quiet", "--bare", directory=bare)
        _fetch(bare, repository, ref=ref, commit=commit)
        _checkout(bare, commit, into, store=store)


def _resolve_remote(url: str, ref: str, *, who: str) -> str:
    if COMMIT.fullmatch(ref):
        return ref
    listed = git(
        *("ls-remote", "--exit-code", "--", url, ref, f"{ref}^{{}}"),
        directory=Path("/"),
        env=of_remotes(Path("/")),
        check=False,
    )
    refs: dict[str, str] = {}
    for line in listed.stdout.splitlines():
        commit, _, name = line.partition("\t")
        refs[name] = commit
    # ls-remote matches the ends of names; of these the tag's commit counts first.
    for name in (f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}", ref):
        if name in refs:
            return refs[name]
    if listed.status not in (0, 2):
        raise _unreachable(url, ProgramFailed(listed))
    raise UserError(
        f"{who} names the ref `{ref}`, which {url} does not have",
        right="name a branch or tag of it, or a commit by all of its digits",
    )


def _fetch(bare: Path, url: str, *, ref: str, commit: str) -> None:
    if _has(bare, commit):
        return
    env = of_remotes(bare)
    with progress(f"fetch {ref} of {url}") as step:

        def show(line: str) -> None:
            step.update(detail=line.rsplit("\r", 1)[-1][:60])

        # Not every server gives a commit by its hash; then the ref must do, and if
        # that has moved on, what led to it.
        for wanted, whole in dict.fromkeys(((commit, False), (ref, False), (ref, True))):
            fetched = git(
                *(
                    "fetch",
                    "--progress",
                    "--no-tags",
                    *_depth(bare, whole=whole),
                    "--",
                    url,
                    wanted,
                ),
                directory=bare,
                env=env,
                check=False,
                on_line=show,
            )
            if _has(bare, commit):
                return
    if fetched.status != 0:
        raise _unreachable(url, ProgramFailed(fetched))
    raise UserError(
        f"{url} no longer has the commit {commit[:12]} that lab.lock wants for `{ref}`",
        right="`lab kernel update` moves the lock",
    )


def _depth(bare: Path, *, whole: bool) -> tuple[str, ...]:
    if not whole:
        return ("--depth=1",)
    # Plain HTTP servers know no depth, and leave nothing shallow either.
    return (WHOLE,) if (bare / "shallow").exists() else ()


def _has(repository: Path, commit: str) -> bool:
    return (
        git("cat-file", "-e", f"{commit}^{{tree}}", directory=repository, check=False).status == 0
    )


def _checkout(repository: Path, commit: str, into: Path, *, store: Store) -> None:
    if not _has(repository, commit):
        raise UserError(
            f"the git tree no longer has the commit {commit[:12]} that lab.lock wants",
            file=repository,
            right="`lab kernel update` moves the lock, or `git fetch` brings the commit back",
        )
    git_dir = git("rev-parse", "--absolute-git-dir", directory=repository).stdout.strip()
    with store.scratch("index") as scratch, progress(f"check out {commit[:12]}"):
        # An index and a work tree of our own.  Not `git archive`, which leaves
        # out what .gitattributes marks export-ignore.
        env = {"GIT_INDEX_FILE": str(scratch / "index"), "GIT_DIR": git_dir}
        where = ("--work-tree", str(into), "-c", "core.autocrlf=false", "-c", "core.bare=false")
        git(*where, "read-tree", commit, directory=into, env=env)
        git(*where, "checkout-index", "--all", "--force", "--quiet", directory=into, env=env)


def _unreachable(url: str, error: ProgramFailed) -> HostError:
    return HostError(
        f"the git tree {url} cannot be read:\n{error.finished.tail(5)}",
        right=f"see that `git ls-remote {url}` works on this host",
    )
