# SPDX-License-Identifier: GPL-2.0-only
"""External module trees: which, and exactly what is in them."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lab.errors import UserError
from lab.manifest import Manifest
from lab.paths import expand
from lab.seal import digest, digest_file
from lab.sources.lua import LuaSource, fetch_lua, lua_key
from lab.store import Store

PRODUCTS = (
    *("*.o", "*.ko", "*.mod", "*.mod.c", "*.a", "*.so", ".*.cmd", ".*.d", "*.o.d", "*.order"),
    *("Module.symvers", "modules.order", ".module-common.o", ".tmp_*", "*.pyc"),
    *(".git", ".hg", ".svn", "__pycache__", ".pc"),
)
"""What a build or an editor leaves; no part of a tree."""

UPSTREAM = "lua/upstream"
"""Where pristine Lua is laid, in a tree that asks for it."""

_PRODUCT = re.compile("|".join(fnmatch.translate(pattern) for pattern in PRODUCTS))


@dataclass(frozen=True, kw_only=True)
class ModuleTree:
    """One external module tree.

    Attributes:
        name: in the manifest, or of the user's directory.
        path: never written to.
        key: content key of its files.
        lua_key: of the pristine Lua that is laid into it, if any.
        fetch_lua: gives that Lua.
    """

    name: str
    path: Path
    key: str
    lua_key: str | None = None
    fetch_lua: Callable[[], LuaSource] | None = field(default=None, repr=False, compare=False)


def module_trees(
    manifest: Manifest, paths: Sequence[Path] = (), *, lock: Path, store: Store
) -> list[ModuleTree]:
    """Every tree of the manifest, and those that the user names.

    Raises:
        UserError: a tree is not there, or nothing says how to build it.
    """
    trees = [_named(manifest, name, lock=lock, store=store) for name in manifest.modules]
    for path in paths:
        tree = read_tree(expand(path).absolute())
        if any(tree.name == other.name for other in trees):
            raise UserError(
                f"two module trees are called `{tree.name}`", file=path, right="rename one"
            )
        trees.append(tree)
    return trees


def read_tree(path: Path, *, name: str | None = None) -> ModuleTree:
    """The tree in a directory.

    Raises:
        UserError: it is no external module tree.
    """
    if not path.is_dir():
        raise UserError("there is no such module tree", file=path)
    if not (path / "Kbuild").is_file() and not (path / "Makefile").is_file():
        raise UserError(
            "this is no module tree: it has neither Kbuild nor Makefile",
            file=path,
            right="write a Kbuild with `obj-m += NAME.o`",
        )
    name = name or re.sub(r"[^A-Za-z0-9._+]+", "-", path.resolve().name)
    return ModuleTree(name=name, path=path, key=tree_key(path))


def tree_key(path: Path) -> str:
    """Content key of a tree's files."""
    return digest("\n".join(f"{name} {what}" for name, what in _contents(path)).encode())[:20]


def _named(manifest: Manifest, name: str, *, lock: Path, store: Store) -> ModuleTree:
    spec = manifest.module_tree(name)
    try:
        tree = read_tree(spec.resolve("path"), name=name)
    except UserError as error:
        raise spec.where("path").error(f"module tree `{name}`: {error.what}", error.right) from None
    if spec.lua is None:
        return tree
    lua, version = manifest.lua[spec.lua], spec.lua
    return ModuleTree(
        name=name,
        path=tree.path,
        key=tree.key,
        lua_key=lua_key(version, lua, lock=lock, store=store),
        fetch_lua=lambda: fetch_lua(version, lua, lock=lock, store=store),
    )


def _contents(top: Path) -> Iterator[tuple[str, str]]:
    for name in sorted(_walk(top, "")):
        path = top / name
        if path.is_symlink():
            yield name, f"-> {path.readlink()}"
        else:
            mode = "x" if path.stat().st_mode & 0o100 else "-"
            yield name, f"{mode} {digest_file(path)}"


def _walk(top: Path, directory: str) -> Iterator[str]:
    with os.scandir(top / directory) as entries:
        for entry in entries:
            name = f"{directory}{entry.name}"
            if _PRODUCT.match(entry.name) or name == UPSTREAM:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(top, f"{name}/")
            elif entry.is_file() or entry.is_symlink():
                yield name


def describe(trees: Sequence[ModuleTree]) -> Mapping[str, Mapping[str, str | None]]:
    """What the module set's key knows of its trees, in order."""
    return {tree.name: {"key": tree.key, "lua": tree.lua_key} for tree in trees}
