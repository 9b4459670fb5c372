# SPDX-License-Identifier: GPL-2.0-only
"""Build external modules against one exact kernel, and put them on a disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.errors import InfraError, KernelError
from lab.kernel.artifact import Kernel
from lab.kernel.build import compile_failure
from lab.kernel.make import MAKE_LOCK, environment, guard, processors
from lab.modules.artifact import ModuleSet, load_modules
from lab.modules.payload import install_extras, make_payload, place_module
from lab.modules.tree import PRODUCTS, UPSTREAM, ModuleTree, describe
from lab.process import ProgramFailed, run
from lab.progress import progress
from lab.seal import digest, digest_file
from lab.store import Json, Store, remove_tree

FORMAT = 2
"""Of the artifact; a new one is another key."""


def build_modules(kernel: Kernel, trees: Sequence[ModuleTree], store: Store) -> ModuleSet:
    """The modules of all trees, built if the store does not have them.

    A tree may use what an earlier one exports.

    Raises:
        KernelError: one does not compile; says the first error, with its line.
    """
    inputs: dict[str, Json] = {
        "format": FORMAT,
        "kernel": kernel.key,
        "trees": [{"name": name, **about} for name, about in describe(trees).items()],
    }

    def build(content: Path) -> None:
        built: list[_Built] = []
        with _working_copies(kernel, trees, store) as hots:
            for tree, hot in zip(trees, hots, strict=True):
                with progress(f"build modules {tree.name} for {kernel.name} {kernel.flavour}"):
                    built.append(_build_tree(kernel, tree, built, hot=hot, store=store))
            _publish(kernel, built, content)

    artifact = store.make("modules", inputs, build)
    return load_modules(key=artifact.key, path=artifact.path)


@dataclass(frozen=True)
class _Built:
    """One tree's working copy, built."""

    tree: ModuleTree
    path: Path
    modules: tuple[Path, ...]


@contextmanager
def _working_copies(
    kernel: Kernel, trees: Sequence[ModuleTree], store: Store
) -> Iterator[list[Path]]:
    """Where each tree is built, ours until all is published.

    Another checkout's tree of the same name goes to the same place. Taken in one
    order by everybody, whatever the order of the trees.
    """
    names = [f"{kernel.name}-{kernel.flavour}-{tree.name}".replace("/", "-") for tree in trees]
    with ExitStack() as held:
        hots = {name: held.enter_context(store.hot("modules", name)) for name in sorted(names)}
        yield [hots[name] for name in names]


def _build_tree(
    kernel: Kernel, tree: ModuleTree, before: Sequence[_Built], *, hot: Path, store: Store
) -> _Built:
    work = hot / "tree"
    # Neither make nor the compiler's dependencies notice another kernel
    # below the same relative paths, and BTF is split against one vmlinux.
    _wipe_if_other(hot, "kernel", kernel.key, work)
    work.mkdir(exist_ok=True)
    mirror(tree, work)
    if tree.fetch_lua is not None:
        lay_lua(tree, hot, work)
    _make(kernel, tree, work, before, log=hot / "build.log", store=store)
    modules = tuple(work / line for line in _order(work))
    for module in modules:
        _check_btf(module)
    return _Built(tree, work, modules)


def _wipe_if_other(hot: Path, what: str, key: str, path: Path) -> bool:
    mark = hot / what
    if mark.exists() and mark.read_text() == key:
        return False
    remove_tree(path)
    mark.write_text(key)
    return True


def mirror(tree: ModuleTree, work: Path) -> None:
    """Copy what differs in content; what does not keeps its time, for make."""
    words = [f"--exclude={pattern}" for pattern in (*PRODUCTS, f"/{UPSTREAM}")]
    run(
        ["rsync", "-rlp", "--checksum", "--delete", *words, f"{tree.path}/", f"{work}/"],
        timeout=600,
    )


def lay_lua(tree: ModuleTree, hot: Path, work: Path) -> None:
    """Lay pristine Lua with the tree's patches, by the tree's own program, when either changed."""
    assert tree.fetch_lua is not None
    lua = tree.fetch_lua()
    recipe = sorted([work / "lua/lay", *(work / "lua/patches").glob("*")])
    key = digest("\n".join([lua.key, *(digest_file(file) for file in recipe)]).encode())
    if not _wipe_if_other(hot, "lua", key, work / UPSTREAM) and (work / UPSTREAM).is_dir():
        return
    (hot / "lua").unlink()
    try:
        run([work / "lua/lay", lua.path], timeout=120)
    except ProgramFailed as error:
        raise KernelError(
            f"the patches of module tree {tree.name} do not apply to Lua {lua.version}:\n"
            f"{error.finished.stdout}{error.finished.tail(10)}",
            file=tree.path / "lua/patches/series",
        ) from None
    (hot / "lua").write_text(key)


def _make(
    kernel: Kernel,
    tree: ModuleTree,
    work: Path,
    before: Sequence[_Built],
    *,
    log: Path,
    store: Store,
) -> None:
    log.unlink(missing_ok=True)
    words = {**variables(kernel, work), "M": str(work)}
    symvers = [str(built.path / "Module.symvers") for built in before]
    if symvers:
        words["KBUILD_EXTRA_SYMBOLS"] = " ".join(symvers)
    try:
        run(make_argv(kernel, words, lock=log.parent / MAKE_LOCK), env=environment(store), log=log)
    except ProgramFailed:
        raise compile_failure(
            what=f"module tree {tree.name}", source=work, log=log, shown=tree.path
        ) from None


def make_argv(kernel: Kernel, words: Mapping[str, str], *, lock: Path) -> list[str]:
    """The make of an external tree, with variables; the lock is that of ``guard``."""
    argv = [*guard(lock), "make", "-C", str(kernel.devel), f"-j{processors()}"]
    given = [f"{name}={value}" for name, value in words.items()]
    return [*argv, "--output-sync=target", *given, "modules"]


def variables(kernel: Kernel, work: Path) -> dict[str, str]:
    """What the kernel was built with; its compiler above all."""
    said: Mapping[str, str] = json.loads(kernel.build_json.read_text())["variables"]
    maps = f"-fdebug-prefix-map={work}=."
    return {**said, "KCFLAGS": maps, "KAFLAGS": maps}


def _order(work: Path) -> list[str]:
    """The modules that were built: M=/modules.order, whose paths changed in 6.12 and 6.13."""
    lines = (work / "modules.order").read_text().split()
    names = [Path(line.removeprefix(f"{work}/")).with_suffix(".ko") for line in lines]
    return [str(name) for name in names]


def _check_btf(module: Path) -> None:
    sections = run(["readelf", "--section-headers", "--wide", module]).stdout
    if " .BTF " not in sections:
        raise InfraError(
            f"{module.name} was built without BTF",
            right="see whether pahole is there and the kernel has CONFIG_DEBUG_INFO_BTF_MODULES",
        )


def _publish(kernel: Kernel, built: Sequence[_Built], content: Path) -> None:
    tree = content / "tree"
    modules = tree / "usr/lib/modules" / kernel.version
    files: dict[str, str] = {}
    (content / "symbols").mkdir()
    for one in built:
        for module in one.modules:
            if module.name in files:
                raise KernelError(f"two module trees build a {module.name}", file=one.tree.path)
            shutil.copy2(module, content / "symbols" / module.name)
            placed = place_module(module, modules / "extra" / module.name)
            files[module.name] = digest_file(placed)
        install_extras(one.path, tree, log=one.path.parent / "install.log")
    make_payload(kernel, tree, content / "payload.erofs")
    remove_tree(tree)
    said = {
        "kernel_key": kernel.key,
        "release": kernel.version,
        "trees": describe([one.tree for one in built]),
        "files": files,
    }
    (content / "modules.json").write_text(json.dumps(said, indent=1) + "\n")
