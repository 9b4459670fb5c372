# SPDX-License-Identifier: GPL-2.0-only
"""How much the lab adds to plain make.  Ratios, both sides measured in this run.

    unchanged    the same inputs again: under 1 s
    incremental  a patch to one file of net/core: at most 1.2 x plain make
    cold         nothing there, ccache empty: at most 1.10 x plain make,
                 publishing apart, which takes under 20 s

The cold one is done with a small kernel, where what the lab adds weighs most;
LAB_BENCH_COLD=1 does it with the default one as well, which takes long.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import manifest
from lab.kernel.artifact import Kernel
from lab.kernel.build import build_kernel
from lab.kernel.make import environment, make_argv
from lab.kernel.recipe import KernelRecipe, make_recipe
from lab.kernel.toolchain import find_toolchain
from lab.process import run
from lab.store import Store

HERE = Path(__file__).parent
KERNEL = "6.12"
FILE = "net/core/dev.c"


@pytest.fixture(scope="module")
def store() -> Store:
    return Store()


@pytest.fixture(scope="module")
def built(store: Store) -> Kernel:
    """The kernel of which the benches are variations."""
    return build_kernel(make_recipe(manifest.read(), KERNEL, store=store), store=store)


def seconds(kernel: Kernel) -> dict[str, float]:
    value: dict[str, float] = json.loads(kernel.build_json.read_text())["seconds"]
    return value


def report(name: str, **figures: float) -> None:
    told = "  ".join(f"{key}={value:.2f}" for key, value in figures.items())
    print(f"\nbench kernel-build {name}: {told}", file=sys.stderr)


@pytest.mark.usefixtures("built")
def test_unchanged_inputs() -> None:
    lab = Path(sys.executable).with_name("lab")
    best = min(_timed([lab, "kernel", "build", KERNEL]) for _ in range(5))
    report("unchanged", seconds=best)
    assert best < 1.0


def _timed(argv: list[object]) -> float:
    began = time.monotonic()
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)
    return time.monotonic() - began


@pytest.fixture
def patch(store: Store, tmp_path: Path) -> Path:
    """A patch to one file that no build before has seen."""
    recipe = make_recipe(manifest.read(), KERNEL, store=store)
    with recipe.open_source() as tree:
        text = (tree.path / FILE).read_text()
    lines = text.splitlines(keepends=True)
    number = time.time_ns()
    last = "".join(f" {line}" for line in lines[-3:])
    file = tmp_path / "bench.patch"
    file.write_text(
        f"Bench.\n\n--- a/{FILE}\n+++ b/{FILE}\n"
        f"@@ -{len(lines) - 2},3 +{len(lines) - 2},5 @@\n{last}"
        f"+int lab_bench_{number};\n+EXPORT_SYMBOL(lab_bench_{number});\n"
    )
    return file


@pytest.mark.usefixtures("built")
def test_incremental(store: Store, patch: Path) -> None:
    lab = manifest.read()
    names = [*lab.kernel(KERNEL).patches, str(patch)]
    began = time.monotonic()
    recipe = make_recipe(lab, KERNEL, store=store, patches=names)
    kernel = build_kernel(recipe, store=store)
    ours = time.monotonic() - began

    toolchain = find_toolchain(least=recipe.least)
    hot_name = f"{recipe.hot_name}-{toolchain.name}"
    with store.hot("build", hot_name) as hot, recipe.open_source() as tree:
        # The next user of the tree puts this right.
        file = tree.path / FILE
        text = file.read_text().replace("lab_bench_", "lab_plain_")
        file.unlink()
        file.write_text(text)
        argv = make_argv(
            source=tree.path,
            output=hot / "tree",
            toolchain=toolchain,
            targets=("bzImage", "modules"),
        )
        plain = run(argv, env=environment(store)).seconds
    report(
        "incremental",
        lab=ours,
        plain=plain,
        ratio=ours / plain,
        publish=seconds(kernel)["publish"],
    )
    assert ours / plain <= 1.2


WHOLE = pytest.mark.skipif(os.environ.get("LAB_BENCH_COLD") != "1", reason="wants LAB_BENCH_COLD=1")


@pytest.mark.parametrize("flavour", ["small", pytest.param("default", marks=WHOLE)])
def test_cold(
    store: Store,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    flavour: str,
) -> None:
    lab = manifest.read(HERE / "small.yaml")
    home = store.root / "tmp-bench"
    shutil.rmtree(home, ignore_errors=True)
    try:
        other = Store(home)
        _share_source(store, other)
        began = time.monotonic()
        recipe = make_recipe(lab, KERNEL, store=other, flavour=flavour)
        kernel = build_kernel(recipe, store=other)
        whole = time.monotonic() - began
        if flavour == "default":
            assert kernel.key == request.getfixturevalue("built").key
        publish = seconds(kernel)["publish"]
        plain = _plain_cold(other, kernel, recipe, tmp_path_factory.mktemp("ccache"))
    finally:
        shutil.rmtree(home, ignore_errors=True)
    ratio = (whole - publish) / plain
    report(f"cold {flavour}", lab=whole, plain=plain, publish=publish, ratio=ratio)
    assert publish < 20
    assert ratio <= 1.10


def _share_source(store: Store, other: Store) -> None:
    """Sources as hard links: fetching and unpacking are no part of a build."""
    for kind in ("artifacts/source", "facts"):
        target = other.root / kind
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(store.root / kind, target, copy_function=os.link, symlinks=True)


def _plain_cold(store: Store, kernel: Kernel, recipe: KernelRecipe, ccache: Path) -> float:
    toolchain = find_toolchain(least=recipe.least)
    with recipe.open_source() as tree:
        output = store.root / "plain" / "tree"
        output.mkdir(parents=True)
        shutil.copy(kernel.config, output / ".config")
        argv = make_argv(
            source=tree.path, output=output, toolchain=toolchain, targets=("bzImage", "modules")
        )
        env = {**environment(store), "CCACHE_DIR": str(ccache)}
        return run(argv, env=env).seconds
