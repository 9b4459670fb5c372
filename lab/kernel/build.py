# SPDX-License-Identifier: GPL-2.0-only
"""Build a kernel: out of tree, in a hot object tree, published under its content key."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from lab import seal
from lab.errors import HostError, KernelError
from lab.kernel.artifact import Kernel, load_kernel
from lab.kernel.compiler_errors import first_error
from lab.kernel.config import config_digest, configure, gather, tell_additions
from lab.kernel.devel import publish_devel
from lab.kernel.make import ARCH, MAKE_LOCK, environment, make_argv, settled, variables
from lab.kernel.recipe import KernelRecipe
from lab.kernel.toolchain import Toolchain, find_toolchain
from lab.process import ProgramFailed, run
from lab.progress import Step, progress
from lab.store import Artifact, Json, Store, remove_tree

FORMAT = 1
"""Of the artifact; a new one is another key."""

OBJECTS_PER_SYMBOL = 1.7
"""Objects of a first build for each enabled symbol (1869 for 1098 with 6.12's default)."""

SUSPECT = 60.0
"""Seconds before a kill in which an object may have been left half-written."""

_FAILED = re.compile(r"make(?:\[\d+\])?: \*\*\* \[.*\] Error \d+")

_OBJECT = re.compile(r"  (?:CC|AS|RUSTC)(?: \[M\])? +(\S+)")


def build_kernel(recipe: KernelRecipe, *, store: Store) -> Kernel:
    """The kernel that a recipe describes, built if the store does not have it.

    Raises:
        UserError: a configuration symbol cannot be had.
        KernelError: it does not compile; says the first error, with its line.
        HostError: a tool is missing or too old, or the disk is full.
    """
    toolchain = find_toolchain(llvm=recipe.llvm, least=recipe.least)
    config = _configure(recipe, toolchain, store)
    final = config.path / "config"
    inputs = _inputs(recipe, toolchain, config)

    def build(content: Path) -> None:
        hot_name = f"{recipe.hot_name}-{toolchain.name}"
        with store.hot("build", hot_name) as hot, recipe.open_source() as tree:
            output = object_tree(hot, tree.generation)
            builder = _Builder(recipe, toolchain, store, source=tree.path, output=output)
            builder.compile(final)
            builder.publish(content, inputs)

    artifact = store.make("kernel", inputs, build)
    # The same bits may go by several names; the caller's is the one to show.
    kernel = load_kernel(key=artifact.key, path=artifact.path)
    return replace(kernel, name=recipe.source.name, flavour=recipe.flavour)


def is_built(recipe: KernelRecipe, *, store: Store) -> bool:
    """Whether the store has the kernel that a recipe describes; it is configured, not built.

    Raises:
        UserError: a configuration symbol cannot be had.
    """
    toolchain = find_toolchain(llvm=recipe.llvm, least=recipe.least)
    config = _configure(recipe, toolchain, store)
    return store.get("kernel", _inputs(recipe, toolchain, config)) is not None


def _inputs(recipe: KernelRecipe, toolchain: Toolchain, config: Artifact) -> dict[str, Json]:
    """Everything that goes into a kernel's key."""
    return {
        "format": FORMAT,
        "source": recipe.source.key,
        "patches": [patch.key for patch in recipe.series.patches],
        "config": config_digest(config),
        "toolchain": {**toolchain.versions},
        "variables": _stable_variables(toolchain),
    }


def configured(recipe: KernelRecipe, *, store: Store) -> Path:
    """The .config of the kernel that a recipe describes, checked.

    Raises:
        UserError: a configuration symbol cannot be had; says why.
    """
    toolchain = find_toolchain(llvm=recipe.llvm, least=recipe.least)
    return _configure(recipe, toolchain, store).path / "config"


def _configure(recipe: KernelRecipe, toolchain: Toolchain, store: Store) -> Artifact:
    requests = gather(
        recipe.fragments, version=recipe.source.version, own_config=recipe.own_config is not None
    )
    if recipe.own_config is not None:
        tell_additions(recipe.own_config, requests)
    return configure(
        name=recipe.source.name,
        source_key=recipe.source_key,
        open_source=recipe.open_source,
        requests=requests,
        toolchain=toolchain,
        store=store,
        own=recipe.own_config,
    )


def _stable_variables(toolchain: Toolchain) -> dict[str, str]:
    """The variables without where source and output lie, which decide nothing."""
    return variables(source=Path("source"), output=Path("output"), toolchain=toolchain)


def object_tree(hot: Path, generation: str) -> Path:
    """The object tree in a working directory, emptied if it belongs to another source tree."""
    output, belongs = hot / "tree", hot / "generation"
    if not belongs.exists() or belongs.read_text() != generation:
        remove_tree(output)
        belongs.write_text(generation)
    output.mkdir(exist_ok=True)
    return output


class _Builder:
    """One build in one object tree, which nobody else uses meanwhile."""

    def __init__(
        self,
        recipe: KernelRecipe,
        toolchain: Toolchain,
        store: Store,
        *,
        source: Path,
        output: Path,
    ) -> None:
        self.recipe = recipe
        self.toolchain = toolchain
        self.store = store
        self.source = source
        self.output = output
        self.log = output.parent / "build.log"
        self.durations: dict[str, float] = {}
        # Now, not when all is built: files may change meanwhile.
        self.fragments = {str(file): seal.digest_file(file) for file in recipe.fragments}

    def compile(self, config: Path) -> None:
        """Bring the object tree up to date with source and configuration."""
        began = time.monotonic()
        self.log.unlink(missing_ok=True)
        whole = not (self.output / "vmlinux").exists()
        _place_config(config, self.output / ".config")
        total = self._expected() if whole else None
        label = f"build {self.recipe.source.name} {self.recipe.flavour}"
        with progress(label, total=total) as step, unclean(self.output):
            objects = self._make("bzImage", "modules", counter=_Counter(step))
        if whole:
            (self.output.parent / "objects").write_text(f"{objects}\n")
        self.durations["compile"] = time.monotonic() - began

    def publish(self, content: Path, inputs: Mapping[str, Json]) -> None:
        """Copy what later rooms need; the object tree lives on and changes."""
        began = time.monotonic()
        release = (self.output / "include/config/kernel.release").read_text().strip()
        with progress(f"publish {release}"):
            self._make("modules_install", extra={"INSTALL_MOD_PATH": str(content / "modules")})
            for link in ("build", "source"):
                (content / "modules/lib/modules" / release / link).unlink(missing_ok=True)
            shutil.copy2(self.output / f"arch/{self._arch()}/boot/bzImage", content / "bzImage")
            for name in ("vmlinux", "System.map"):
                shutil.copy2(self.output / name, content / name)
            shutil.copy2(self.output / ".config", content / "config")
            shutil.copy2(self.log, content / "build.log")
            publish_devel(
                source=self.source,
                output=self.output,
                vmlinux=content / "vmlinux",
                devel=content / "devel",
            )
        self.durations["publish"] = time.monotonic() - began
        said = json.dumps(self._describe(release, inputs), indent=1)
        (content / "build.json").write_text(said + "\n")

    def _make(
        self,
        *targets: str,
        counter: Callable[[str], None] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> int:
        argv = make_argv(
            source=self.source, output=self.output, toolchain=self.toolchain, targets=targets
        )
        argv += [f"{name}={value}" for name, value in (extra or {}).items()]
        try:
            run(argv, env=environment(self.store), log=self.log, on_line=counter)
        except (ProgramFailed, MakeFailed):
            raise compile_failure(
                what=f"the kernel {self.recipe.source.name} ({self.recipe.flavour})",
                source=self.source,
                log=self.log,
            ) from None
        return counter.done if isinstance(counter, _Counter) else 0

    def _expected(self) -> int:
        """Objects of a whole build: as many as last time, or a guess."""
        with suppress(OSError, ValueError):
            return int((self.output.parent / "objects").read_text())
        enabled = re.findall(r"=[ym]$", (self.output / ".config").read_text(), re.MULTILINE)
        return int(len(enabled) * OBJECTS_PER_SYMBOL)

    def _arch(self) -> str:
        return "x86" if (self.output / "arch/x86/boot/bzImage").exists() else ARCH

    def _describe(self, release: str, inputs: Mapping[str, Json]) -> dict[str, Json]:
        recipe = self.recipe
        return {
            "name": recipe.source.name,
            "flavour": recipe.flavour,
            "release": release,
            "inputs": inputs,
            "source": {"version": recipe.source.version, "key": recipe.source.key},
            "patches": [
                {
                    "name": patch.name,
                    "file": str(patch.file),
                    "sha256": seal.digest(patch.text.encode()),
                }
                for patch in recipe.series.patches
            ],
            "fragments": [
                {"file": file, "sha256": sha256} for file, sha256 in self.fragments.items()
            ],
            "own_config": None if recipe.own_config is None else str(recipe.own_config),
            "toolchain": {**self.toolchain.versions},
            "variables": variables(
                source=self.source, output=self.output, toolchain=self.toolchain
            ),
            "seconds": {name: round(value, 1) for name, value in self.durations.items()},
        }


class MakeFailed(Exception):
    """make has said that a target failed; it would go on with others for minutes."""


def compile_failure(
    *, what: str, source: Path, log: Path, shown: Path | None = None
) -> KernelError | HostError:
    """The error for a make that failed: the first thing that a compiler said, not make's tail.

    Args:
        source: paths below it are shown from there,
        shown: or as below this, where the user's own file is.
    """
    text = log.read_text(errors="replace")
    if os.strerror(28) in text:
        return HostError(
            f"no space left on the disk while {what} was built", right="see `lab gc`", file=log
        )
    found = first_error(text, source=source)
    if found is None:
        tail = "\n".join(text.rstrip().splitlines()[-8:])
        return KernelError(f"{what} does not build:\n{tail}", right=f"see {log}")
    if found.host:
        return HostError(
            f"a program for the build host does not compile: {found.file}:{found.line}: "
            f"{found.text}",
            right="install what it includes; `lab doctor` knows the packages",
        )
    return KernelError(
        f"{found.text}\n{what} does not compile",
        file=shown / found.file if shown and found.file else found.file,
        line=found.line,
        right=f"the whole log is {log}",
    )


class _Counter:
    """Counts objects as make names them, and stops at the first that fails."""

    def __init__(self, step: Step) -> None:
        self.step = step
        self.done = 0

    def __call__(self, line: str) -> None:
        if _FAILED.match(line):
            raise MakeFailed(line)
        found = _OBJECT.match(line)
        if found:
            self.done += 1
            total = self.step.total
            self.step.update(min(self.done, total) if total else self.done, detail=found[1])


@contextmanager
def unclean(output: Path) -> Iterator[None]:
    """Mark an object tree while make writes into it, and heal it if the mark is still there.

    make deletes what it was making when it is interrupted, but not when it is
    killed: then a half-written object may be newer than all that it is made from.
    """
    mark = output.parent / "unclean"
    if mark.exists():
        with settled(output.parent / MAKE_LOCK):
            heal(output)
    mark.touch()
    try:
        yield
    except KernelError:
        mark.unlink()  # make ended by itself, in order
        raise
    mark.unlink()


def heal(output: Path) -> int:
    """Remove the objects that were written last before a kill; how many."""
    written = []
    for directory, _, names in os.walk(output):
        present = set(names)
        for name in names:
            if f".{name}.cmd" in present:
                path = f"{directory}/{name}"
                written.append((os.lstat(path).st_mtime, path))
    newest = max(written, default=(0.0, ""))[0]
    suspects = [path for moment, path in written if moment > newest - SUSPECT]
    for path in suspects:
        Path(path).unlink()
    return len(suspects)


def _place_config(config: Path, target: Path) -> None:
    """Copy only what differs: make goes by times."""
    with suppress(OSError):
        if target.read_bytes() == config.read_bytes():
            return
    shutil.copyfile(config, target)
