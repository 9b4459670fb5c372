# SPDX-License-Identifier: GPL-2.0-only
"""Kernels of a manifest become source trees, and every bad source says what is wrong."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sources_kit import FILES, MAKEFILE, git, make_repository, read_tree, write_tree

from lab import lockfile
from lab.errors import LabError, UserError
from lab.manifest import Manifest
from lab.manifest import read as read_manifest
from lab.process import Finished
from lab.sources import commit
from lab.sources.fetch import fetch, identify
from lab.sources.git import SLOWEST, SSH, of_remotes
from lab.sources.git import git as real_git
from lab.sources.tree import SourceTree
from lab.sources.update import as_records, update
from lab.store import Store

MANIFEST = """\
default_kernel: mine
default_image: i
kernels:
  mine:
    source: {source}
flavours:
  default: {{fragments: []}}
images:
  i: {{recipe: i.yaml}}
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lab.lock"


def manifest(tmp_path: Path, source: str) -> Manifest:
    (tmp_path / "lab.yaml").write_text(MANIFEST.format(source=source))
    return read_manifest(root=tmp_path)


def get(tmp_path: Path, source: str) -> SourceTree:
    spec = manifest(tmp_path, source).kernel("mine")
    return fetch("mine", spec, lock=tmp_path / "lab.lock", store=Store(tmp_path / "store"))


def refusal(tmp_path: Path, source: str) -> LabError:
    with pytest.raises(LabError) as caught:
        get(tmp_path, source)
    left = list((tmp_path / "store" / "artifacts").rglob("*"))
    assert not [path for path in left if path.is_file()], "half-made artifacts"
    assert not [path for path in (tmp_path / "store" / "tmp").iterdir() if path.is_dir()]
    return caught.value


def pack(tmp_path: Path, *options: str, name: str = "linux.tar.xz") -> tuple[Path, str]:
    write_tree(tmp_path / "pack" / "linux-6.12.117")
    target = tmp_path / name
    argv = [
        "tar",
        "-C",
        str(tmp_path / "pack"),
        "-caf",
        str(target),
        *(options or ["linux-6.12.117"]),
    ]
    subprocess.run(argv, check=True)
    return target, hashlib.sha256(target.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["linux.tar.xz", "linux.tar.gz", "linux.tar"])
def test_tarball(tmp_path: Path, name: str) -> None:
    path, sha256 = pack(tmp_path, name=name)
    tree = get(tmp_path, f"{{tarball: {path.name}, sha256: {sha256}}}")
    assert {file: text for file, (text, _) in read_tree(tree.path).items()} == FILES
    assert (tree.version, tree.user) == ("6.12.117", False)


def test_tarball_by_url(tmp_path: Path) -> None:
    path, sha256 = pack(tmp_path)
    tree = get(tmp_path, f'{{tarball: "{path.as_uri()}", sha256: {sha256}}}')
    assert tree.version == "6.12.117"
    assert not list((tmp_path / "store/hot/download").rglob("linux*"))


def test_tarball_with_another_sha256(tmp_path: Path) -> None:
    path, sha256 = pack(tmp_path)
    error = refusal(tmp_path, f"{{tarball: {path.name}, sha256: {'a' * 64}}}")
    assert error.exit_status == 2
    assert "lab.yaml:5 wants aaa" in error.what and sha256 in error.what


def test_tarball_truncated(tmp_path: Path) -> None:
    path, _ = pack(tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    error = refusal(tmp_path, f"{{tarball: {path.name}, sha256: {sha256}}}")
    assert error.exit_status == 2 and "is truncated" in error.what and error.file == path


def test_tarball_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "linux.tar"
    path.write_text("Not found\n" * 1000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    error = refusal(tmp_path, f"{{tarball: {path.name}, sha256: {sha256}}}")
    assert "is no tarball" in error.what


def test_tarball_of_something_else(tmp_path: Path) -> None:
    write_tree(tmp_path / "pack" / "hello", {"Makefile": "all:\n"})
    path, sha256 = pack(tmp_path, "hello")
    error = refusal(tmp_path, f"{{tarball: {path.name}, sha256: {sha256}}}")
    assert "the source of kernel mine is not a kernel tree" in error.what


def test_tarball_of_the_tree_itself(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    path, sha256 = pack(tmp_path, "-C", str(tree), ".")
    found = get(tmp_path, f"{{tarball: {path.name}, sha256: {sha256}}}")
    assert read_tree(found.path) == read_tree(tree)


def test_tarball_of_two_directories(tmp_path: Path) -> None:
    path, sha256 = pack(tmp_path, "-C", str(write_tree(tmp_path / "tree")), "net", "include")
    error = refusal(tmp_path, f"{{tarball: {path.name}, sha256: {sha256}}}")
    assert "does not hold one top directory but 2 entries" in error.what


def test_tarball_that_is_not_there(tmp_path: Path) -> None:
    error = refusal(tmp_path, f"{{tarball: gone.tar, sha256: {'a' * 64}}}")
    assert "not there" in error.what and error.file == tmp_path / "gone.tar"


def test_url_of_another_kind(tmp_path: Path) -> None:
    error = refusal(tmp_path, f'{{tarball: "gopher://x/linux.tar", sha256: {"a" * 64}}}')
    assert "gopher" in error.what


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return make_repository(tmp_path / "linux")


@pytest.mark.parametrize("where", ["linux", "file://{}/linux"])
def test_git(tmp_path: Path, repository: Path, where: str) -> None:
    (repository / ".gitattributes").write_text("Kbuild export-ignore\n")
    git(repository, "add", ".gitattributes")
    git(repository, "commit", "--quiet", "--message", "second")
    git(repository, "tag", "--annotate", "--message", "x", "v6.12.117")
    (repository / "Makefile").write_text("dirty, and none of its business\n")
    before = read_tree(repository)
    tree = get(tmp_path, f'{{git: "{where.format(tmp_path)}", ref: v6.12.117}}')
    assert read_tree(repository) == before
    assert set(read_tree(tree.path)) == {*FILES, ".gitattributes"}
    assert (tree.path / "Makefile").read_text() == MAKEFILE
    locked = lockfile.read(tmp_path / "lab.lock").entries["kernels", "mine"]
    assert locked.version == git(repository, "rev-parse", "HEAD")


def test_git_of_a_hook_is_not_meant(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever runs the lab from a hook has another repository in the environment."""
    other = make_repository(tmp_path / "other", {**FILES, "Makefile": "all:\n"})
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git" / "index"))
    before = (other / ".git" / "index").read_bytes()
    tree = get(tmp_path, f"{{git: {repository}, ref: main}}")
    assert read_tree(tree.path).keys() >= FILES.keys()
    assert (tree.path / "Makefile").read_text() == MAKEFILE
    assert (other / ".git" / "index").read_bytes() == before


def test_git_stays_at_the_locked_commit_until_update(tmp_path: Path, repository: Path) -> None:
    source = "{git: linux, ref: main}"
    first = get(tmp_path, source)
    (repository / "Makefile").write_text(MAKEFILE.replace("117", "118"))
    git(repository, "commit", "--quiet", "--all", "--message", "second")
    assert get(tmp_path, source).key == first.key
    store, lock = Store(tmp_path / "store"), tmp_path / "lab.lock"
    (moved,) = update([], manifest=manifest(tmp_path, source), lock=lock, store=store)
    assert str(moved).startswith("kernels mine: ")
    (record,) = as_records([moved])
    json.dumps(record)
    assert record["after"] == {"version": git(repository, "rev-parse", "main"), "sha256": None}
    assert get(tmp_path, source).version == "6.12.118"
    assert update([], manifest=manifest(tmp_path, source), lock=lock, store=store) == []


def test_package_that_its_suite_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def newest(**_: object) -> None:
        raise UserError("the Debian suite x has no package y", right="name another")

    monkeypatch.setattr("lab.sources.debian.newest", newest)
    error = refusal(tmp_path, "{debian: y, suite: x}")
    assert str(error) == (
        f"{tmp_path}/lab.yaml:5: the Debian suite x has no package y; name another"
    )


@pytest.mark.parametrize("where", ["linux", "file://{}/linux"])
def test_git_ref_that_is_not_there(tmp_path: Path, repository: Path, where: str) -> None:
    error = refusal(tmp_path, f'{{git: "{where.format(tmp_path)}", ref: v6.99}}')
    assert error.exit_status == 2
    assert "lab.yaml:5 names the ref `v6.99`" in error.what
    assert not (tmp_path / "lab.lock").exists()


@pytest.mark.parametrize(
    ("where", "status", "what"),
    [
        ("gone", 2, "not there"),
        ("file:///nowhere/linux", 3, "cannot be read"),
        ("pack", 2, "but this is none"),
    ],
)
def test_git_tree_that_is_not_there(tmp_path: Path, where: str, status: int, what: str) -> None:
    (tmp_path / "pack").mkdir()
    error = refusal(tmp_path, f'{{git: "{where}", ref: main}}')
    assert error.exit_status == status and what in error.what


def test_git_commit_that_was_lost(tmp_path: Path, repository: Path) -> None:
    spec = manifest(tmp_path, "{git: linux, ref: main}").kernel("mine")
    locked = lockfile.Locked(request={"git": "linux", "ref": "main"}, version="1" * 40)
    lockfile.pin(tmp_path / "lab.lock", "kernels", "mine", locked)
    with pytest.raises(UserError, match="no longer has the commit 111111111111"):
        fetch("mine", spec, lock=tmp_path / "lab.lock", store=Store(tmp_path / "store"))


def test_a_remote_that_gives_no_commit_by_its_hash(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ref does, and brings no more history than the commit would have."""
    (repository / "net/core/sock.c").write_text("int other;\n")
    git(repository, "commit", "--quiet", "--all", "--message", "second")
    wanted = git(repository, "rev-parse", "main")

    def by_ref_only(*words: str, **how: Any) -> Finished:
        refused = (*words[:-1], "0" * 40) if "fetch" in words and words[-1] == wanted else words
        return real_git(*refused, **how)

    monkeypatch.setattr(commit, "git", by_ref_only)
    tree = get(tmp_path, f'{{git: "file://{repository}", ref: main}}')
    assert (tree.path / "net/core/sock.c").read_text() == "int other;\n"
    (bare,) = (tmp_path / "store" / "hot" / "git").iterdir()
    assert git(bare, "rev-list", "--count", wanted) == "1"


def test_a_commit_that_only_the_history_of_the_ref_has(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f'{{git: "file://{repository}", ref: main}}'
    spec = manifest(tmp_path, source).kernel("mine")
    first = git(repository, "rev-parse", "main")
    (repository / "Makefile").write_text(MAKEFILE.replace("117", "118"))
    git(repository, "commit", "--quiet", "--all", "--message", "second")
    locked = lockfile.Locked(request={"git": f"file://{repository}", "ref": "main"}, version=first)
    lockfile.pin(tmp_path / "lab.lock", "kernels", "mine", locked)
    # With version 2 of its protocol a server gives whatever it has.
    for name, value in {"COUNT": "1", "KEY_0": "protocol.version", "VALUE_0": "0"}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    tree = fetch("mine", spec, lock=tmp_path / "lab.lock", store=Store(tmp_path / "store"))
    assert tree.version == "6.12.117"


@pytest.mark.parametrize("own", [None, "GIT_SSH_COMMAND", "GIT_SSH", "core.sshCommand"])
def test_no_remote_is_waited_for_without_end(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    for name in ("GIT_SSH", "GIT_SSH_COMMAND", *SLOWEST):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    if own == "core.sshCommand":
        (tmp_path / "gitconfig").write_text("[core]\n\tsshCommand = myssh\n")
    elif own:
        monkeypatch.setenv(own, "myssh")
    asked: dict[str, dict[str, str]] = {}

    def watched(*words: str, **how: Any) -> Finished:
        asked[words[0]] = how.get("env") or {}
        return real_git(*words, **how)

    monkeypatch.setattr(commit, "git", watched)
    get(tmp_path, f'{{git: "file://{repository}", ref: main}}')
    for word in ("ls-remote", "fetch"):
        assert asked[word].items() >= SLOWEST.items()
        assert asked[word].get("GIT_SSH_COMMAND") == (None if own else SSH)
    monkeypatch.setenv("GIT_HTTP_LOW_SPEED_TIME", "900")
    assert "GIT_HTTP_LOW_SPEED_TIME" not in of_remotes(tmp_path)


def test_path(tmp_path: Path) -> None:
    write_tree(tmp_path / "my")
    tree = get(tmp_path, "{path: my}")
    assert (tree.user, tree.name, tree.path) == (True, "mine", tmp_path / "my")


def test_path_that_is_no_kernel(tmp_path: Path) -> None:
    (tmp_path / "my").mkdir()
    error = refusal(tmp_path, "{path: my}")
    assert "is not a kernel tree" in error.what and error.file == tmp_path / "my"


def test_identify_needs_the_source_only_once(tmp_path: Path, store: Store, lock: Path) -> None:
    path, sha256 = pack(tmp_path)
    spec = manifest(tmp_path, f"{{tarball: {path.name}, sha256: {sha256}}}").kernel("mine")
    first = identify("mine", spec, lock=lock, store=store)
    path.unlink()
    again = identify("mine", spec, lock=lock, store=Store(store.root))
    assert (again.key, again.version, again.line) == (first.key, "6.12.117", "6.12")
    assert not isinstance(again, SourceTree)


def test_update_of_a_kernel_that_is_not_there(tmp_path: Path, store: Store, lock: Path) -> None:
    with pytest.raises(UserError, match="no kernel `mien`"):
        update(["mien"], manifest=manifest(tmp_path, "{path: my}"), lock=lock, store=store)
