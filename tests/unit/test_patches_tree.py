# SPDX-License-Identifier: GPL-2.0-only
"""The hot tree: what a change of the series or the source rewrites, and what it leaves."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from sources_kit import DEV_C, FILES, change, create, make_repository, read_tree, write_tree

from lab.errors import UserError
from lab.kernel import mirror
from lab.kernel.patches import PatchedTree, patched_key, patched_tree
from lab.kernel.series import NO_PATCHES, PatchSeries, make_patch
from lab.sources.fetch import fetch_path
from lab.sources.tree import SourceTree
from lab.store import Store

DEV = change("int line20;", "int a;")
SOCK = "--- a/net/core/sock.c\n+++ b/net/core/sock.c\n@@ -1 +1 @@\n-int sock;\n+int socks;\n"
NEW = create("net/core/lua.c", "int lua;")
BAD = change("int line19;", "int b;")


def series(*texts: str) -> PatchSeries:
    return PatchSeries(
        name="s",
        patches=tuple(
            make_patch(name=f"{n}", file=Path(f"/p/{n}"), text=text) for n, text in enumerate(texts)
        ),
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def source(store: Store) -> SourceTree:
    return stored(store, FILES)


def stored(store: Store, files: dict[str, str]) -> SourceTree:
    def build(into: Path) -> None:
        write_tree(into, files)
        for path in into.rglob("*"):
            os.utime(path, (1_700_000_000, 1_700_000_000))

    artifact = store.make("source", {"files": files}, build)
    return SourceTree(name="6.12", path=artifact.path, version="6.12.117", key=artifact.key)


def build(source: SourceTree, patches: Sequence[str], store: Store) -> PatchedTree:
    with patched_tree(source, series(*patches), store) as tree:
        return tree


def times(tree: PatchedTree) -> dict[str, int]:
    return {name: (tree.path / name).lstat().st_mtime_ns for name in read_tree(tree.path)}


def changed(before: dict[str, int], after: dict[str, int]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def test_patches_are_applied_and_the_source_is_not_touched(
    store: Store, source: SourceTree
) -> None:
    pristine = read_tree(source.path)
    tree = build(source, [DEV, NEW], store)
    assert "int a;" in (tree.path / "net/core/dev.c").read_text()
    assert (tree.path / "net/core/lua.c").read_text() == "int lua;\n"
    assert (tree.path / "Makefile").read_text() == FILES["Makefile"]
    assert read_tree(source.path) == pristine


def test_one_more_patch_writes_only_its_files(store: Store, source: SourceTree) -> None:
    before = times(build(source, [DEV], store))
    tree = build(source, [DEV, SOCK], store)
    assert changed(before, times(tree)) == {"net/core/sock.c"} == set(tree.written)


def test_the_same_series_writes_nothing(store: Store, source: SourceTree) -> None:
    before = times(build(source, [DEV, NEW], store))
    tree = build(source, [DEV, NEW], store)
    assert tree.written == () and times(tree) == before


def test_a_dropped_patch_is_taken_back_with_a_new_time(store: Store, source: SourceTree) -> None:
    """With the old time, make would keep the object of the patched file."""
    before = times(build(source, [DEV, NEW], store))
    tree = build(source, [], store)
    after = times(tree)
    assert changed(before, after) == {"net/core/dev.c", "net/core/lua.c"}
    assert after["net/core/dev.c"] > before["net/core/dev.c"]
    assert read_tree(tree.path) == read_tree(source.path)


def test_order_does_not_matter_to_files_that_come_out_equal(
    store: Store, source: SourceTree
) -> None:
    before = times(build(source, [DEV, SOCK], store))
    assert times(build(source, [SOCK, DEV], store)) == before


def test_a_patch_on_a_patch(store: Store, source: SourceTree) -> None:
    build(source, [DEV, SOCK], store)
    tree = build(source, [DEV, change("int a;", "int b;"), SOCK], store)
    assert tree.written == ("net/core/dev.c",)
    assert "int b;" in (tree.path / "net/core/dev.c").read_text()


def test_a_bad_patch_leaves_the_tree_as_it_was(store: Store, source: SourceTree) -> None:
    before = times(build(source, [DEV], store))
    with pytest.raises(UserError, match="hunk 1 of 1"):
        build(source, [SOCK, BAD], store)
    assert times(build(source, [DEV], store)) == before
    assert not list((store.root / "tmp").glob("patches*"))


def test_an_interrupted_change_is_put_right(
    store: Store, source: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(source, [DEV], store)
    placed = mirror._Placer.place

    def interrupted(self: mirror._Placer, name: str, origin: str) -> bool:
        if name == "net/core/sock.c":
            raise KeyboardInterrupt
        return placed(self, name, origin)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mirror._Placer, "place", interrupted)
        build(source, [change("int line10;", "int b;", line=10), NEW, SOCK], store)
    tree = build(source, [DEV], store)
    wanted = {**FILES, "net/core/dev.c": DEV_C.replace("int line20;", "int a;")}
    assert {name: text for name, (text, _) in read_tree(tree.path).items()} == wanted


def test_an_interrupted_first_layout_is_finished(
    store: Store, source: SourceTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: mirror._Placer, name: str, origin: str) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(mirror._Placer, "place", interrupted)
        build(source, [], store)
    assert read_tree(build(source, [], store).path) == read_tree(source.path)


def test_a_file_that_somebody_edited_is_put_right(store: Store, source: SourceTree) -> None:
    tree = build(source, [DEV], store)
    for name in ("net/core/sock.c", "net/core/dev.c"):
        (tree.path / name).unlink()
        (tree.path / name).write_text("int mine;\n")
    (tree.path / "net/core/sock.o").write_text("object")
    again = build(source, [DEV], store)
    assert set(again.written) == {"net/core/sock.c", "net/core/dev.c", "net/core/sock.o"}
    assert (again.path / "net/core/sock.c").read_text() == FILES["net/core/sock.c"]


def test_a_new_source_version_writes_only_what_differs(store: Store, source: SourceTree) -> None:
    before = times(build(source, [DEV], store))
    newer = {**FILES, "Makefile": FILES["Makefile"].replace("117", "118"), "new.c": "int n;\n"}
    del newer["include/linux/net.h"]
    tree = build(stored(store, newer), [DEV], store)
    assert changed(before, times(tree)) == {"Makefile", "new.c", "include/linux/net.h"}
    assert not (tree.path / "include").exists()


def test_generation_lasts_as_long_as_the_tree(store: Store, source: SourceTree) -> None:
    first = build(source, [DEV], store)
    assert build(source, [], store).generation == first.generation
    (first.path.parent / "index.json").unlink()
    assert build(source, [], store).generation != first.generation


def test_make_sees_what_changed(store: Store, source: SourceTree, tmp_path: Path) -> None:
    """The point of it all, with make itself: one added patch re-makes one object."""
    rules = tmp_path / "rules.mk"
    rules.write_text(
        "sources := $(wildcard $(SRC)/net/core/*.c)\n"
        "all: $(notdir $(sources:.c=.o))\n"
        "%.o: $(SRC)/net/core/%.c\n\t@echo CC $*\n\t@cp $< $@\n"
    )

    def made(*patches: str) -> str:
        tree = build(source, patches, store)
        argv = ["make", "-C", str(tmp_path / "out"), "-f", str(rules), f"SRC={tree.path}", "-s"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    (tmp_path / "out").mkdir()
    assert made(DEV).split() == ["CC", "dev", "CC", "sock"]
    assert made(DEV, SOCK).split() == ["CC", "sock"]
    assert made(SOCK).split() == ["CC", "dev"]
    assert made(SOCK) == ""


def test_key_is_known_before(store: Store, source: SourceTree) -> None:
    assert build(source, [DEV], store).key == patched_key(source, series(DEV))
    assert patched_key(source, series(DEV)) != patched_key(source, NO_PATCHES)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    root = make_repository(tmp_path / "linux")
    (root / ".gitignore").write_text("*.o\n.*\n!.gitignore\n")
    return root


def test_the_users_tree_is_mirrored_without_build_products(store: Store, mine: Path) -> None:
    (mine / ".config").write_text("CONFIG_A=y\n")
    (mine / "net/core/dev.o").write_text("object")
    (mine / "net/core/sock.c").write_text("int dirty;\n")
    (mine / "net/core/untracked.c").write_text("int new;\n")
    before = read_tree(mine)
    tree = build(fetch_path(mine, store), [DEV], store)
    assert read_tree(mine) == before
    found = read_tree(tree.path)
    assert set(found) == {*FILES, "net/core/untracked.c", ".gitignore"}
    assert found["net/core/sock.c"][0] == "int dirty;\n"


def test_an_edit_in_the_users_tree_writes_one_file(store: Store, mine: Path) -> None:
    before = times(build(fetch_path(mine, store), [DEV], store))
    (mine / "net/core/sock.c").write_text("int edited;\n")
    os.utime(mine / "net/core/sock.c", (1_600_000_000, 1_600_000_000))  # an older file copied in
    tree = build(fetch_path(mine, store), [DEV], store)
    after = times(tree)
    assert changed(before, after) == {"net/core/sock.c"}
    assert after["net/core/sock.c"] > before["net/core/sock.c"]


def test_an_edit_below_a_patch(store: Store, mine: Path) -> None:
    build(fetch_path(mine, store), [DEV], store)
    (mine / "net/core/dev.c").write_text(DEV_C + "int more;\n")
    tree = build(fetch_path(mine, store), [DEV], store)
    text = (tree.path / "net/core/dev.c").read_text()
    assert "int a;" in text and "int more;" in text


def test_the_users_tree_is_never_linked(store: Store, mine: Path) -> None:
    """An editor that writes in place would otherwise change what is being built."""
    tree = build(fetch_path(mine, store), [], store)
    assert not (tree.path / "Makefile").samefile(mine / "Makefile")


def test_a_tree_that_changes_meanwhile_is_refused(store: Store, mine: Path) -> None:
    source = fetch_path(mine, store)
    (mine / "net/core/sock.c").write_text("int later;\n")
    with pytest.raises(UserError, match="changed while the tree was read"):
        build(source, [], store)


def test_a_name_that_kbuild_would_refuse(store: Store, tmp_path: Path) -> None:
    tree = build(fetch_path(write_tree(tmp_path / "my linux: 6@12"), store), [], store)
    assert not set(" :@") & set(str(tree.path.relative_to(store.root)))
    assert (tree.path / "Makefile").read_text() == FILES["Makefile"]


def test_two_trees_of_one_name_do_not_share(store: Store, tmp_path: Path) -> None:
    trees = [write_tree(tmp_path / place / "linux") for place in "ab"]
    assert len({build(fetch_path(tree, store), [], store).path for tree in trees}) == 2
