# SPDX-License-Identifier: GPL-2.0-only
"""A bundle for each failure: all that one needs to look into it, or run it again."""

from __future__ import annotations

import linecache
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from lab.progress import note
from lab.results.record import Node, Splat, TestResult
from lab.testing.cell import Cell, load_cell
from lab.testing.rig import Rig, checkout, root_of
from lab.testing.shared import ITSELF
from lab.testing.trial import directory_name
from lab.testing.words import making_tests
from lab.watch.symbols import Symbols, decode

_FAILED = ("failed", "kernel", "infra")
#: Bytes of a log beyond which a bundle links to no copy of it.
_LONGEST = 64 << 20


def make_bundles(
    tests: Sequence[TestResult], *, rig: Rig, cell_file: Path
) -> tuple[TestResult, ...]:
    """Make the bundles of a cell; its tests, with the names of their bundles."""
    symbols = _SymbolsOfNodes(rig)
    result = []
    for test in tests:
        if test.status not in _FAILED:
            result.append(test)
            continue
        path = cell_file.parent / "bundles" / directory_name(test.id)
        try:
            _make(test, path, rig=rig, cell_file=cell_file, symbols=symbols)
        except OSError as error:
            note(f"no bundle for {test.id}: {error}")
            result.append(test)
            continue
        name = path.relative_to(cell_file.parent.parent.parent).as_posix()
        result.append(test.model_copy(update={"bundle": name}))
    return tuple(result)


class _SymbolsOfNodes:
    """The symbols of whatever kernel a node ran, each kernel's read once."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._known: dict[str, Symbols] = {}

    def __getitem__(self, node: Node | None) -> Symbols:
        kernel, modules = self._rig.modules_for(node.kernel if node else "")
        if kernel.key not in self._known:
            directories = [kernel.modules] + ([modules.symbols] if modules else [])
            self._known[kernel.key] = Symbols(kernel.vmlinux, directories)
        return self._known[kernel.key]


def _make(
    test: TestResult, path: Path, *, rig: Rig, cell_file: Path, symbols: _SymbolsOfNodes
) -> None:
    path.mkdir(parents=True, exist_ok=True)
    cell = load_cell(cell_file)
    again = cell.model_copy(
        update={
            "tests": _again(test.id, cell),
            "workers": 0,
            "shard": 1,
            "shards": 1,
            "options": making_tests(cell.options),
        }
    )
    again.save(path / "cell.json")
    (path / "test.json").write_text(test.model_dump_json(indent=1) + "\n", encoding="utf-8")
    (path / "README").write_text(_readme(test, rig), encoding="utf-8")
    for name, file in (("config", rig.kernel.config), ("build.json", rig.kernel.build_json)):
        shutil.copyfile(file, path / name)
    # Captures and the topology are the test's, logs its machines'.
    _copy_files(cell_file.parent / "nodes" / directory_name(test.id), path)
    for node in test.nodes:
        target = path / "nodes" / node.name
        _copy_files(cell_file.parent / node.directory, target)
        kernel, _ = rig.modules_for(node.kernel)
        if kernel.key != rig.kernel.key:
            shutil.copyfile(kernel.config, target / "config")
    nodes = {node.name: node for node in test.nodes}
    stacks = [
        f"{splat.node}: {splat.title}\n{_decoded(splat, symbols[nodes.get(splat.node)])}\n"
        for splat in test.splats
        if splat.stack
    ]
    if stacks:
        (path / "stacks.txt").write_text("\n".join(stacks), encoding="utf-8")


def _decoded(splat: Splat, symbols: Symbols) -> str:
    return decode(splat.stack, symbols, report=splat.text.splitlines())


def _again(test: str, cell: Cell) -> tuple[str, ...]:
    """What to run to see it again: what no single test did, all of them may have."""
    return cell.tests if test.startswith(ITSELF) else (_full_id(test, cell),)


def _full_id(test: str, cell: Cell) -> str:
    """A test's id as the command line takes it: ids are relative to pytest's root."""
    root = root_of(cell.tests, checkout())
    return test if root == checkout() else str(root / test)


def _copy_files(source: Path, target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    if not source.is_dir():
        return
    for file in source.iterdir():
        copy = target / file.name
        if not file.is_file() or copy.exists():
            continue
        try:
            # A link: what a machine that has ended wrote does not change any more.
            os.link(file, copy)
        except OSError:
            if file.stat().st_size <= _LONGEST:
                shutil.copyfile(file, copy)


def _readme(test: TestResult, rig: Rig) -> str:
    root = root_of(rig.cell.tests, checkout())
    source = linecache.getline(str(root / test.file), test.line).strip()
    lines = [
        f"test     {test.id}",
        f"status   {test.status}: {test.message}",
        f"at       {test.file}:{test.line}: {source}",
        f"kernel   {rig.kernel.version} ({rig.kernel.flavour}), {rig.kernel.key}",
        f"modules  {rig.cell.modules}",
        f"image    {rig.cell.image}",
        "",
        "Run it again:            lab replay DIRECTORY",
        "with a shell at its end: lab replay DIRECTORY --shell",
        "under gdb:               lab replay DIRECTORY --gdb",
        "",
    ]
    return "\n".join(lines)
