# SPDX-License-Identifier: GPL-2.0-only
"""What is to be built, out of the manifest and what the user typed."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from lab.errors import UserError
from lab.kernel.config import fragment_file
from lab.kernel.open_source import OpenSource, OpenTree
from lab.kernel.patches import patched_tree, tree_name
from lab.kernel.series import NO_PATCHES, PatchSeries, load_series
from lab.kernel.toolchain import Version, minimums
from lab.manifest import ROOT, KernelSpec, Manifest
from lab.sources.fetch import fetch, fetch_path, identify
from lab.sources.tree import SourceId, SourceTree
from lab.store import Json, Store, key

LOCK = ROOT / "lab.lock"

SERIES_FRAGMENT = "lab.config"
"""The configuration that a patch series wants, in its quilt directory."""

# What Kconfig and the rules around it read; a change elsewhere needs no new configuration.
CONFIGURING = re.compile(
    "|".join(
        fnmatch.translate(pattern)
        for pattern in (
            *("Kconfig*", "*/Kconfig*", "Makefile", "scripts/*", "kernel/configs/*"),
            *("arch/*/Makefile*", "arch/*/configs/*"),
        )
    )
)


@dataclass(frozen=True, kw_only=True)
class KernelRecipe:
    """What to build.

    Attributes:
        source: which source; ``open_source`` gives it patched.
        source_key: of all in the patched source that Kconfig reads, so that
            a patch to a .c file needs no new configuration.
        hot_name: of the working directory; one per source and flavour.
        fragments: in order.
        own_config: the user's .config, instead of tinyconfig.
        least: tool -> the least version that this source builds with.
    """

    source: SourceId
    series: PatchSeries
    open_source: OpenSource
    source_key: str
    hot_name: str
    flavour: str
    fragments: tuple[Path, ...]
    own_config: Path | None = None
    llvm: bool = False
    least: Mapping[str, Version]


def make_recipe(
    manifest: Manifest,
    kernel: str,
    *,
    store: Store,
    flavour: str = "default",
    patches: Sequence[str] | None = None,
    config: Path | None = None,
    extra: Sequence[str] = (),
    llvm: bool = False,
    lock: Path = LOCK,
) -> KernelRecipe:
    """What to build for a kernel of the manifest, or for a tree of the user's own.

    Args:
        kernel: a name in the manifest, or the path of a kernel tree.
        patches: names in the manifest or whatever ``load_series`` reads, in
            place of the patches that the manifest gives this kernel.
        config: the user's .config, in place of the one in the manifest.
        extra: fragments of the lab, after all others.

    Raises:
        UserError: there is no such kernel, flavour, series, fragment or .config.
        HostError: the source cannot be fetched.
    """
    spec = _spec(manifest, kernel)
    wanted = manifest.flavour(flavour)
    config = _own_config(spec, config)  # before a source is fetched and pinned
    if spec is None:
        source: SourceId = fetch_path(Path(kernel), store)
    else:
        source = identify(kernel, spec, lock=lock, store=store)
    names = patches if patches is not None else spec.patches if spec else ()
    series = reduce(add, (_series(manifest, name, source.line) for name in names), NO_PATCHES)
    files = [
        fragment_file(name, beside=wanted.where("fragments", index).file.parent)
        for index, name in enumerate(wanted.fragments)
    ]
    if spec is not None:
        files += [
            fragment_file(name, beside=spec.where("fragments", index).file.parent)
            for index, name in enumerate(spec.fragments)
        ]
    files += series_fragments(series)
    files += [fragment_file(name, beside=ROOT) for name in extra]

    def tree() -> SourceTree:
        if isinstance(source, SourceTree):
            return source
        assert spec is not None
        return fetch(kernel, spec, lock=lock, store=store)

    @contextmanager
    def open_source() -> Iterator[OpenTree]:
        with patched_tree(tree(), series, store) as patched:
            yield patched

    hot = tree_name(source) if isinstance(source, SourceTree) else source.name
    return KernelRecipe(
        source=source,
        series=series,
        open_source=open_source,
        source_key=configuring_key(source, series),
        hot_name="-".join((hot, flavour, *extra)),
        flavour=flavour,
        fragments=tuple(files),
        own_config=config,
        llvm=llvm,
        least=_least(source, tree, store=store),
    )


def series_fragments(series: PatchSeries) -> list[Path]:
    """What quilt directories ask for: a ``lab.config`` beside their ``series``."""
    directories = dict.fromkeys(patch.file.parent for patch in series.patches)
    return [
        directory / SERIES_FRAGMENT
        for directory in directories
        if (directory / "series").is_file() and (directory / SERIES_FRAGMENT).is_file()
    ]


def configuring_key(source: SourceId, series: PatchSeries) -> str:
    """Content key of what a configuration depends on, in source and patches."""
    inside: Json = source.key
    if isinstance(source, SourceTree) and source.files is not None:
        inside = {
            name: content for name, content in source.files.items() if CONFIGURING.match(name)
        }
    relevant = [
        patch.key
        for patch in series.patches
        if any(CONFIGURING.match(file) for file in patch.files)
    ]
    return key({"source": inside, "patches": relevant})


def _spec(manifest: Manifest, kernel: str) -> KernelSpec | None:
    """The manifest's kernel, or None if it is a path."""
    if kernel not in manifest.kernels and is_path(kernel):
        return None
    return manifest.kernel(kernel)


def _own_config(spec: KernelSpec | None, asked: Path | None) -> Path | None:
    """The user's .config: the one asked for, else the manifest's."""
    if asked is not None:
        if asked.is_dir():
            raise UserError("this is a directory", file=asked, right="name a .config")
        if not asked.is_file():
            raise UserError("there is no such .config", file=asked)
        return asked
    if spec is None or spec.config is None:
        return None
    path = spec.resolve("config")
    if not path.is_file():
        raise spec.where("config").error(f"there is no .config `{path}`")
    return path


def is_path(kernel: str) -> bool:
    """Whether it can only be a path; an empty word is a name that nothing has."""
    return "/" in kernel or (kernel != "" and Path(kernel).is_dir())


def _series(manifest: Manifest, name: str, line: str) -> PatchSeries:
    if name not in manifest.series:
        return load_series(name, line=line)
    spec = manifest.patch_series(name)
    if spec.path is not None:
        return load_series(spec.resolve("path"), line=line)
    return load_series(f"{spec.resolve('git')}:{spec.range}", line=line)


def _least(
    source: SourceId, tree: Callable[[], SourceTree], *, store: Store
) -> Mapping[str, Version]:
    """The least versions of tools, remembered for sources that do not change."""
    if isinstance(source, SourceTree):
        return minimums(source.path)
    fact = f"least-{source.key}"
    known = store.recall(fact)
    if not isinstance(known, Mapping):
        known = {tool: list(version) for tool, version in minimums(tree().path).items()}
        store.remember(fact, known)
    return {
        tool: tuple(part for part in parts if isinstance(part, int))
        for tool, parts in known.items()
        if isinstance(parts, Sequence)
    }
