# SPDX-License-Identifier: GPL-2.0-only
"""External modules and the payload disk, against a fake kernel."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from kernel_kit import Bench

from lab import manifest
from lab.errors import InfraError, KernelError, UserError
from lab.kernel.artifact import Kernel
from lab.modules.artifact import ModuleSet
from lab.modules.build import build_modules
from lab.modules.payload import make_payload
from lab.modules.tree import ModuleTree, module_trees, read_tree
from lab.seal import digest_file
from lab.sources.lua import LuaSource

SOURCE = "#include <linux/driver.h>\nint answer(void)\n{\n\treturn DRIVER_ANSWER;\n}\n"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def kernel(bench: Bench) -> Kernel:
    return bench.build()


@pytest.fixture
def driver(tmp_path: Path) -> Path:
    path = tmp_path / "driver"
    path.mkdir()
    (path / "Kbuild").write_text("obj-m += answer.o\n")
    (path / "answer.c").write_text(SOURCE)
    return path


def build(kernel: Kernel, bench: Bench, *paths: Path) -> ModuleSet:
    return build_modules(kernel, [read_tree(path) for path in paths], bench.store)


def listing(payload: Path) -> set[str]:
    """Every file on a payload disk, by what mkfs packed."""
    out = payload.parent / "unpacked"
    subprocess.run(["fsck.erofs", f"--extract={out}", payload], check=True, capture_output=True)
    return {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}


def log_of(kernel: Kernel, bench: Bench, name: str) -> str:
    hot = bench.store.root / f"hot/modules/{kernel.name}-{kernel.flavour}-{name}"
    return (hot / "build.log").read_text()


def test_a_tree_becomes_a_payload(kernel: Kernel, bench: Bench, driver: Path) -> None:
    made = build(kernel, bench, driver)
    assert set(made.files) == {"answer.ko"}
    assert made.kernel_key == kernel.key
    assert (made.symbols / "answer.ko").is_file()
    unpacked = listing(made.payload)
    assert "usr/lib/modules/6.12.99/extra/answer.ko" in unpacked
    assert "usr/lib/modules/6.12.99/modules.dep" in unpacked


def test_the_hashes_are_those_of_the_payload(kernel: Kernel, bench: Bench, driver: Path) -> None:
    made = build(kernel, bench, driver)
    listing(made.payload)
    placed = made.path / "unpacked/usr/lib/modules/6.12.99/extra/answer.ko"
    assert made.files["answer.ko"] == digest_file(placed)


def test_the_same_inputs_are_built_once(kernel: Kernel, bench: Bench, driver: Path) -> None:
    first = build(kernel, bench, driver)
    before = first.payload.stat().st_mtime_ns
    assert build(kernel, bench, driver).payload.stat().st_mtime_ns == before


def test_an_edit_is_another_set(kernel: Kernel, bench: Bench, driver: Path) -> None:
    first = build(kernel, bench, driver)
    (driver / "other.h").write_text("\n")
    second = build(kernel, bench, driver)
    assert second.key != first.key
    assert "CC" not in log_of(kernel, bench, "driver")  # answer.c was not touched


def test_no_other_lab_has_the_working_copies_before_all_is_published(
    kernel: Kernel, bench: Bench, driver: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it lays its own tree there, and that one's files are published under our key."""
    second = tmp_path / "another"
    shutil.copytree(driver, second)
    (second / "answer.c").rename(second / "second.c")
    (second / "Kbuild").write_text("obj-m += second.o\n")
    held: dict[str, bool] = {}

    def publish(*arguments: Any) -> None:
        held.update({one.name: one.used for one in bench.store.stored() if "modules" in one.kind})
        make_payload(*arguments)

    monkeypatch.setattr("lab.modules.build.make_payload", publish)
    # Whoever names them the other way round must not wait for us, and we for them.
    assert build(kernel, bench, second, driver).files.keys() == {"second.ko", "answer.ko"}
    assert len(held) == 2
    assert all(held.values()), held


def test_products_are_no_part_of_a_tree(kernel: Kernel, bench: Bench, driver: Path) -> None:
    first = build(kernel, bench, driver)
    for name in ("answer.o", "answer.ko", ".answer.o.cmd", "Module.symvers"):
        (driver / name).write_text("left over")
    assert build(kernel, bench, driver).key == first.key


def test_another_kernel_means_everything_anew(kernel: Kernel, bench: Bench, driver: Path) -> None:
    build(kernel, bench, driver)
    bench.edit("include/linux/driver.h", "42", "43")
    build(bench.build(), bench, driver)
    assert "CC [M]  answer.o" in log_of(kernel, bench, "driver")


def test_a_module_that_does_not_compile(kernel: Kernel, bench: Bench, driver: Path) -> None:
    (driver / "answer.c").write_text(SOURCE.replace("DRIVER_ANSWER", "NOT_DEFINED"))
    with pytest.raises(KernelError) as caught:
        build(kernel, bench, driver)
    assert (caught.value.file, caught.value.line) == (driver / "answer.c", 4)
    assert "NOT_DEFINED" in str(caught.value)
    assert caught.value.exit_status == 1
    assert not list(bench.store.root.glob("artifacts/modules/*"))


def test_a_module_without_btf_is_not_let_through(
    kernel: Kernel, bench: Bench, driver: Path
) -> None:
    (driver / "Kbuild").write_text("obj-m += answer.o\nbtf := n\n")
    with pytest.raises(InfraError, match=r"answer\.ko was built without BTF"):
        build(kernel, bench, driver)


def test_scripts_and_tools_go_along(kernel: Kernel, bench: Bench, driver: Path) -> None:
    for name in ("lib/socket/init.lua", "lib/readme.txt", "examples/a.lua", "tools/bin/ctl"):
        (driver / name).parent.mkdir(parents=True, exist_ok=True)
        (driver / name).write_text("#!/bin/sh\n")
    (driver / "tools/bin/ctl").chmod(0o755)
    unpacked = listing(build(kernel, bench, driver).payload)
    assert "usr/lib/modules/lua/socket/init.lua" in unpacked
    assert "usr/lib/modules/lua/examples/a.lua" in unpacked
    assert "usr/sbin/ctl" in unpacked
    assert not any("readme" in name for name in unpacked)


def test_tools_with_a_makefile_install_themselves(
    kernel: Kernel, bench: Bench, driver: Path
) -> None:
    (driver / "tools").mkdir()
    (driver / "tools/tool.c").write_text("int main(void) { return 0; }\n")
    (driver / "tools/Makefile").write_text(
        "install:\n\tmkdir -p $(DESTDIR)$(PREFIX)/bin\n"
        "\t$(CC) -o $(DESTDIR)$(PREFIX)/bin/tool tool.c\n"
    )
    assert "usr/bin/tool" in listing(build(kernel, bench, driver).payload)
    (driver / "tools/tool.c").write_text("int main(void) { return gone; }\n")
    with pytest.raises(KernelError) as caught:
        build(kernel, bench, driver)
    assert caught.value.line == 1
    assert "gone" in str(caught.value)


def lua_tree(driver: Path, tmp_path: Path) -> ModuleTree:
    pristine = tmp_path / "lua"
    pristine.mkdir(exist_ok=True)
    (pristine / "lua.h").write_text("#define LUA 5\n")
    (driver / "lua/patches").mkdir(parents=True, exist_ok=True)
    (driver / "lua/patches/series").write_text("")
    lay = driver / "lua/lay"
    lay.write_text('#!/bin/sh\nset -e\nhere=$(dirname "$0")\nmkdir "$here/upstream"\n'
                   'cp "$1"/lua.h "$here/upstream"\n')  # fmt: skip
    lay.chmod(0o755)
    (driver / "answer.c").write_text('#include "lua/upstream/lua.h"\nint lua = LUA;\n')
    tree = read_tree(driver)
    lua = LuaSource(path=pristine, version="5.5.1", key="abc")
    return ModuleTree(
        name=tree.name, path=tree.path, key=tree.key, lua_key="abc", fetch_lua=lambda: lua
    )


def test_lua_is_laid_into_the_copy_only(
    kernel: Kernel, bench: Bench, driver: Path, tmp_path: Path
) -> None:
    made = build_modules(kernel, [lua_tree(driver, tmp_path)], bench.store)
    assert "answer.ko" in made.files
    assert not (driver / "lua/upstream").exists()


def test_lua_is_laid_again_only_if_it_changed(
    kernel: Kernel, bench: Bench, driver: Path, tmp_path: Path
) -> None:
    build_modules(kernel, [lua_tree(driver, tmp_path)], bench.store)
    (driver / "unrelated.h").write_text("\n")
    build_modules(kernel, [lua_tree(driver, tmp_path)], bench.store)  # lay's mkdir would fail
    (driver / "lua/patches/new.patch").write_text("\n")
    build_modules(kernel, [lua_tree(driver, tmp_path)], bench.store)


def test_patches_that_do_not_apply_to_lua(
    kernel: Kernel, bench: Bench, driver: Path, tmp_path: Path
) -> None:
    tree = lua_tree(driver, tmp_path)
    (driver / "lua/lay").write_text("#!/bin/sh\necho 'Hunk #1 FAILED at 7.'\nexit 1\n")
    with pytest.raises(KernelError, match=r"do not apply to Lua 5\.5\.1:\nHunk #1 FAILED"):
        build_modules(kernel, [tree], bench.store)


def test_a_tree_of_the_users_own_joins_those_of_the_manifest(bench: Bench, driver: Path) -> None:
    lab = manifest.read(bench.manifest)
    lock = manifest.ROOT / "lab.lock"
    names = [tree.name for tree in module_trees(lab, [driver], lock=lock, store=bench.store)]
    assert names == [*lab.modules, "driver"]
    with pytest.raises(UserError, match="two module trees are called"):
        module_trees(lab, [driver, driver], lock=lock, store=bench.store)


@pytest.mark.parametrize(("make", "message"), [(False, "no such module tree"), (True, "no module")])
def test_what_is_no_module_tree(tmp_path: Path, make: bool, message: str) -> None:
    path = tmp_path / "nothing"
    if make:
        path.mkdir()
    with pytest.raises(UserError, match=message):
        read_tree(path)


def test_modules_json_tells_what_went_in(kernel: Kernel, bench: Bench, driver: Path) -> None:
    made = build(kernel, bench, driver)
    about = json.loads((made.path / "modules.json").read_text())
    assert about["release"] == "6.12.99"
    assert about["trees"]["driver"]["key"] == read_tree(driver).key
