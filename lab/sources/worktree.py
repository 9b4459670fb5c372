# SPDX-License-Identifier: GPL-2.0-only
"""The user's own working tree: dirty as it is, never written to.

What belongs to the source is found anew each time; what was hashed once is
hashed again only if it changed.  A tree that was built in place holds build
products, which would make an out-of-tree build refuse it ("not clean") and
which are therefore no part of the source.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
import stat
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lab import seal
from lab.paths import expand
from lab.progress import Step, progress
from lab.sources.git import git
from lab.sources.tree import SourceTree, kernel_version
from lab.store import Store, key

Signature = list[int]
"""Size, times of content and of the inode, inode number, mode: equal means unchanged."""

RACY = 50_000_000
"""Nanoseconds before a scan in which a change would not show: a clock tick, with room."""

# What a build leaves behind, as the kernel's own .gitignore files list it.
# They cannot be used themselves where there is no git tree: Debian's ignores
# everything at the top.
PRODUCTS = (
    *("*.a", "*.asn1.c", "*.asn1.h", "*.bin", "*.cmd", "*.d", "*.dtb", "*.dtb.S", "*.dtbo"),
    *("*.dtbo.S", "*.dwo", "*.elf", "*.gcda", "*.gcno", "*.i", "*.ko", "*.ko.*", "*.lex.c"),
    *("*.ll", "*.lst", "*.mod", "*.mod.c", "*.o", "*.o.*", "*.order", "*.pyc", "*.rmeta"),
    *("*.rsi", "*.so", "*.so.dbg", "*.su", "*.symtypes", "*.symversions", "*.tab.[ch]"),
    *(".config", ".config.old", ".missing-syscalls.d", ".tmp_*", ".version", ".vmlinux*"),
    *("Module.symvers", "System.map", "asm-offsets.h.tmp", "modules.builtin*", "vmlinux"),
    *("vmlinux.a", "vmlinux.bin*", "vmlinux.lds", "vmlinux.map", "vmlinux.objs"),
    *("vmlinux.symvers", "vmlinux.unstripped", "compile_commands.json"),
)
PRODUCT_DIRECTORIES = (
    "include/config",
    "include/generated",
    "arch/*/include/generated",
    "usr/include/generated",
)
JUNK = ("__pycache__", ".git", ".hg", ".svn", ".pc")


def user_tree(path: Path, store: Store) -> SourceTree:
    """The user's own tree as a source, as it stands just now.

    Raises:
        UserError: it is no kernel tree.
    """
    path = expand(path).absolute()
    version = kernel_version(path)
    files = scan(path, store)
    listed = json.dumps(sorted(files.items()), separators=(",", ":")).encode()
    return SourceTree(
        name=path.resolve().name,
        path=path,
        version=version,
        key=key({"tree": seal.digest(listed)}),
        user=True,
        files=files,
    )


def scan(path: Path, store: Store) -> dict[str, str]:
    """What belongs to the source below a path.

    Returns:
        Path -> ``100644:<sha256>``, ``100755:<sha256>`` or ``120000:<target>``,
        the first number being git's word for file, program and link.
    """
    with store.hot("worktree", seal.digest(os.fsencode(path))[:20]) as directory:
        index = directory / "index.json"
        before = _read_index(index)
        began = time.time_ns()
        with progress(f"look at {path}") as step:
            found = dict(_signatures(path, list_files(path)))
            known = {
                name: before[name][1]
                for name, signature in found.items()
                if name in before and before[name][0] == signature
            }
            known.update(_hash(path, [name for name in found if name not in known], found, step))
        settled = {
            name: (signature, known[name])
            for name, signature in found.items()
            if name in known and max(signature[1:3]) < began - RACY
        }
        if settled != before:
            seal.publish(index, json.dumps(settled, separators=(",", ":")).encode())
    return known


def list_files(path: Path) -> Iterable[str]:
    """The paths of a tree that a build did not make, relative to it."""
    tracked = git("ls-files", "--error-unmatch", "Makefile", "Kconfig", directory=path, check=False)
    if tracked.status == 0:
        listed = git(
            *("ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"),
            directory=path,
        )
        # A directory in this list is a repository of its own inside the tree.
        return [name for name in listed.stdout.split("\0") if name and not name.endswith("/")]
    return _walk(path)


def content_of(path: Path | str) -> str:
    """One file in the words of ``scan``."""
    found = os.lstat(path)
    if stat.S_ISLNK(found.st_mode):
        return f"120000:{os.readlink(path)}"  # noqa: PTH115 - thousands of them
    return f"{'100755' if found.st_mode & stat.S_IXUSR else '100644'}:{seal.digest_file(path)}"


def _walk(top: Path) -> Iterator[str]:
    root = os.fspath(top)
    product = re.compile("|".join(fnmatch.translate(pattern) for pattern in PRODUCTS))
    places = re.compile("|".join(fnmatch.translate(pattern) for pattern in PRODUCT_DIRECTORIES))
    pending = [""]
    while pending:
        directory = pending.pop()
        with os.scandir(f"{root}/{directory}") as entries:
            for entry in entries:
                name = f"{directory}{entry.name}"
                if entry.name in JUNK:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    if not places.match(name):
                        pending.append(f"{name}/")
                elif not product.match(entry.name):
                    yield name


def _signatures(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Signature]]:
    root = os.fspath(path)
    for name in names:
        try:
            found = os.lstat(f"{root}/{name}")
        except OSError:
            continue  # tracked and deleted, or gone since it was listed
        if stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
            yield (
                name,
                [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_mode],
            )


def _hash(
    path: Path, names: list[str], signatures: Mapping[str, Signature], step: Step
) -> dict[str, str]:
    root = os.fspath(path)
    total = sum(signatures[name][0] for name in names) >> 20
    done = 0

    def one(name: str) -> str | None:
        try:
            return content_of(f"{root}/{name}")
        except FileNotFoundError:
            return None

    result = {}
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        for name, content in zip(names, pool.map(one, names), strict=True):
            done += signatures[name][0]
            step.update(done >> 20, total=total, detail="MiB hashed")
            if content is not None:
                result[name] = content
    return result


def _read_index(index: Path) -> dict[str, tuple[Signature, str]]:
    try:
        return {
            name: (entry[0], entry[1]) for name, entry in json.loads(index.read_bytes()).items()
        }
    except (OSError, ValueError, TypeError, IndexError, AttributeError):
        return {}
