# SPDX-License-Identifier: GPL-2.0-only
"""The user's own tree: what belongs to it, when its key changes, and that it stays untouched."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
from sources_kit import FILES, git, make_repository, read_tree, write_tree

from lab import seal
from lab.errors import UserError
from lab.sources import worktree
from lab.sources.worktree import user_tree
from lab.store import Store

PRODUCTS = (
    ".config",
    ".config.old",
    ".version",
    ".net.o.cmd",
    "vmlinux",
    "vmlinux.o",
    "System.map",
    "Module.symvers",
    "modules.order",
    "net/core/dev.o",
    "net/core/.dev.o.cmd",
    "net/core/built-in.a",
    "net/core/sock.mod.c",
    "net/core/sock.ko",
    "include/config/auto.conf",
    "include/generated/autoconf.h",
    "arch/x86/include/generated/asm/bug.h",
    "arch/x86/boot/vmlinux.bin",
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(params=["git", "plain"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "linux"
    if request.param == "plain":
        return write_tree(root)
    make_repository(root)
    ignore = "*.o\n*.a\n*.ko\n*.cmd\n*.mod.c\nvmlinux*\n*.order\n*.symvers\nSystem.map\n.*\n"
    (root / ".git/info/exclude").write_text(ignore + "include/config\ngenerated\n")
    return root


def settle() -> None:
    """Wait until the last change is older than what counts as just now."""
    time.sleep(worktree.RACY / 1e9 + 0.02)


def test_a_tree(tree: Path, store: Store) -> None:
    found = user_tree(tree, store)
    assert found.user and found.version == "6.12.117" and found.name == "linux"
    assert set(found.files or ()) == set(FILES)


def test_it_is_not_touched(tree: Path, store: Store) -> None:
    before = read_tree(tree)
    user_tree(tree, store)
    user_tree(tree, store)
    assert read_tree(tree) == before


def test_build_products_do_not_count(tree: Path, store: Store) -> None:
    before = user_tree(tree, store)
    write_tree(tree, dict.fromkeys(PRODUCTS, "made"))
    after = user_tree(tree, store)
    assert set(after.files or ()) == set(FILES)
    assert after.key == before.key


def test_every_edit_counts(tree: Path, store: Store) -> None:
    keys = {user_tree(tree, store).key}
    (tree / "net/core/sock.c").write_text("int edit;\n")  # the same size
    keys.add(user_tree(tree, store).key)
    (tree / "net/core/new.c").write_text("int new;\n")
    keys.add(user_tree(tree, store).key)
    (tree / "Kbuild").chmod(0o755)
    keys.add(user_tree(tree, store).key)
    (tree / "include/linux/net.h").unlink()
    keys.add(user_tree(tree, store).key)
    (tree / "link").symlink_to("Kbuild")
    keys.add(user_tree(tree, store).key)
    assert len(keys) == 6


def test_an_edit_with_the_old_time_and_size_counts(tree: Path, store: Store) -> None:
    before = user_tree(tree, store)
    settle()
    assert user_tree(tree, store).key == before.key
    path = tree / "net/core/sock.c"
    then = path.stat()
    path.write_text(path.read_text().replace("sock", "cosk"))
    os.utime(path, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert user_tree(tree, store).key != before.key


def test_the_place_does_not_count(tree: Path, store: Store, tmp_path: Path) -> None:
    shutil.copytree(tree, tmp_path / "elsewhere" / "linux", symlinks=True)
    assert user_tree(tmp_path / "elsewhere" / "linux", store).key == user_tree(tree, store).key


def test_nothing_is_hashed_twice(tree: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    settle()
    user_tree(tree, store)
    hashed: list[str] = []
    digest_file = seal.digest_file
    monkeypatch.setattr(seal, "digest_file", lambda path: hashed.append(path) or digest_file(path))
    (tree / "Kbuild").write_text("obj-y :=\n")
    user_tree(tree, store)
    assert [Path(path).name for path in hashed] == ["Kbuild"]


def test_a_damaged_index_is_only_slow(tree: Path, store: Store) -> None:
    settle()
    before = user_tree(tree, store)
    (index,) = (store.root / "hot" / "worktree").glob("*/index.json")
    index.write_text('{"Kbuild": [1]')
    assert user_tree(tree, store).key == before.key


def test_a_tree_inside_of_another_repository_that_ignores_it(tmp_path: Path, store: Store) -> None:
    outer = tmp_path / "outer"
    (outer / "linux").mkdir(parents=True)
    git(outer, "init", "--quiet")
    (outer / ".gitignore").write_text("linux\n")
    write_tree(outer / "linux")
    assert set(user_tree(outer / "linux", store).files or ()) == set(FILES)


def test_not_a_kernel_tree(tmp_path: Path, store: Store) -> None:
    with pytest.raises(UserError, match="is not a kernel tree"):
        user_tree(tmp_path, store)
