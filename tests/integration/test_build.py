# SPDX-License-Identifier: GPL-2.0-only
"""The kernel builder, on a fake tree that builds in milliseconds."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from kernel_kit import Bench, said

from lab.errors import HostError, KernelError, UserError
from lab.kernel.build import SUSPECT, heal, is_built
from lab.store import Store
from lab.testing.aside import build_aside
from lab.testing.stages import Stage, Wanted


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_kernel_has_all_its_parts(bench: Bench) -> None:
    kernel = bench.build()
    for part in (kernel.bzimage, kernel.vmlinux, kernel.system_map, kernel.config):
        assert part.stat().st_size > 0
    assert kernel.version == "6.12.99"
    assert kernel.modules.is_dir()
    assert not (kernel.modules / "build").is_symlink()
    assert kernel.devel.joinpath("vmlinux").samefile(kernel.vmlinux)


def test_build_json_tells_every_input(bench: Bench) -> None:
    about = said(bench.build())
    assert about["flavour"] == "tiny"
    assert about["source"]["version"] == "6.12.99"
    assert about["fragments"][0]["file"] == str(bench.fragment)
    assert "gcc" in about["toolchain"]["cc"]
    assert about["variables"]["KBUILD_BUILD_HOST"] == "lab"
    assert set(about["seconds"]) == {"compile", "publish"}


def test_the_same_inputs_are_built_once(bench: Bench) -> None:
    first = bench.build()
    log = bench.store.root / f"hot/build/{bench.recipe().hot_name}-gcc/build.log"
    before = log.stat().st_mtime_ns
    assert bench.build().key == first.key
    assert log.stat().st_mtime_ns == before


def test_whether_it_is_built_is_known_without_building(bench: Bench) -> None:
    recipe = bench.recipe()
    assert not is_built(recipe, store=bench.store)
    assert not (bench.store.root / "hot/build").exists()
    bench.build()
    assert is_built(recipe, store=bench.store)


def test_a_change_compiles_only_its_file(bench: Bench) -> None:
    first = bench.build()
    assert set(bench.compiled(first)) == {"init/main.o", "drivers/driver.o"}
    bench.edit("init/main.c", "return 0", "return 1")
    second = bench.build()
    assert second.key != first.key
    assert bench.compiled(second) == ["init/main.o"]


def test_a_change_of_source_needs_no_new_configuration(bench: Bench) -> None:
    before = bench.recipe().source_key
    bench.edit("init/main.c", "return 0", "return 1")
    assert bench.recipe().source_key == before
    bench.edit("Kconfig", '"Net"', '"Network"')
    assert bench.recipe().source_key != before


def test_the_users_tree_is_not_written_to(bench: Bench) -> None:
    def look() -> dict[str, int]:
        return {str(path): path.lstat().st_mtime_ns for path in bench.tree.rglob("*")}

    before = look()
    bench.build()
    assert look() == before


def test_another_configuration_is_another_kernel(bench: Bench) -> None:
    first = bench.build()
    bench.fragment.write_text("CONFIG_NET=n\nCONFIG_LZ4=y\nCONFIG_XZ=n\n")
    assert bench.build().key != first.key


def test_flavours_that_come_to_the_same_share_a_kernel(bench: Bench) -> None:
    one, two = bench.build(flavour="tiny"), bench.build(flavour="other")
    assert one.key == two.key
    assert (one.flavour, two.flavour) == ("tiny", "other")


def test_stamps_do_not_come_from_the_clock(bench: Bench) -> None:
    bench.build()
    hot = bench.store.root / f"hot/build/{bench.recipe().hot_name}-gcc"
    stamp = (hot / "tree/include/generated/compile.h").read_text().strip()
    assert stamp == "Thu Jan  1 00:00:00 UTC 1970"


def test_two_stores_make_equal_kernels(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b-longer-name").mkdir()
    one, two = Bench(tmp_path / "a").build(), Bench(tmp_path / "b-longer-name").build()
    assert one.vmlinux.read_bytes() == two.vmlinux.read_bytes()


def test_nothing_of_the_callers_environment_reaches_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    usual = Bench(tmp_path / "a").build()
    monkeypatch.setenv("LLVM", "1")
    monkeypatch.setenv("KCONFIG_CONFIG", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("KCPPFLAGS", "-DDRIVER_ANSWER=13 -Dstart_kernel=elsewhere")
    monkeypatch.setenv("MAKEFLAGS", "--dry-run")
    odd = Bench(tmp_path / "b").build()
    assert odd.key == usual.key
    assert odd.vmlinux.read_bytes() == usual.vmlinux.read_bytes()
    assert not (tmp_path / "elsewhere").exists()


def test_the_first_compiler_error_is_shown(bench: Bench) -> None:
    bench.edit("drivers/driver.c", "return DRIVER_ANSWER", "return NOT_DEFINED")
    with pytest.raises(KernelError) as caught:
        bench.build()
    error = caught.value
    assert (str(error.file), error.line) == ("drivers/driver.c", 6)
    assert "NOT_DEFINED" in str(error)
    assert "make" not in error.what.split("\n")[0]
    assert error.exit_status == 1
    assert not list(bench.store.root.glob("artifacts/kernel/*"))


def test_a_build_beside_the_tests_fails_as_it_would_by_itself(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.edit("drivers/driver.c", "return DRIVER_ANSWER", "return NOT_DEFINED")
    monkeypatch.setenv("LAB_MANIFEST", str(bench.manifest))
    monkeypatch.setenv("LAB_CACHE", str(bench.store.root))
    stage = Stage(kernel=str(bench.tree), recipe=bench.recipe(), tests=())
    wanted = Wanted(kernels=(stage.kernel,), flavours=("tiny",))
    log = bench.home / "builds/linux-tiny.log"
    with pytest.raises(KernelError) as caught:
        build_aside(stage, wanted, log, threading.Event())
    assert str(caught.value).startswith("drivers/driver.c:6: ")
    assert "NOT_DEFINED" in str(caught.value)
    assert str(log) in str(caught.value)


def test_a_repaired_kernel_builds_on(bench: Bench) -> None:
    bench.build()
    bench.edit("drivers/driver.c", "return DRIVER_ANSWER", "return NOT_DEFINED")
    with pytest.raises(KernelError):
        bench.build()
    bench.edit("drivers/driver.c", "return NOT_DEFINED", "return DRIVER_ANSWER + 1")
    assert bench.compiled(bench.build()) == ["drivers/driver.o"]


def test_the_first_error_ends_the_build(bench: Bench) -> None:
    bench.edit("Makefile", "objects := ", "objects := $(O)/slow ")
    bench.edit("Makefile", "modules_install:", "$(O)/slow:\n\tsleep 60\n\nmodules_install:")
    bench.edit("drivers/driver.c", "return DRIVER_ANSWER", "return NOT_DEFINED")
    began = time.monotonic()
    with pytest.raises(KernelError, match="NOT_DEFINED"):
        bench.build()
    assert time.monotonic() - began < 30


def test_a_missing_header_of_a_host_program_is_the_hosts_fault(bench: Bench) -> None:
    bench.edit("Makefile", "modules: ", "modules: $(srctree)/scripts/host.c ")
    bench.edit(
        "Makefile",
        "modules_install:",
        '%/host: \n\nbzImage: host\n\nhost:\n\t@echo "  HOSTCC  host"\n'
        "\t@gcc $(srctree)/scripts/host.c\n\nmodules_install:",
    )
    (bench.tree / "scripts/host.c").write_text("#include <not/installed.h>\n")
    with pytest.raises(HostError, match=r"not/installed\.h"):
        bench.build()


def test_patches_are_part_of_the_kernel(bench: Bench, tmp_path: Path) -> None:
    plain = bench.build()
    patch = tmp_path / "answer.patch"
    patch.write_text(
        "An answer of its own.\n\n--- a/include/linux/driver.h\n+++ b/include/linux/driver.h\n"
        "@@ -1,2 +1,2 @@\n /* SPDX-License-Identifier: GPL-2.0-only */\n"
        "-#define DRIVER_ANSWER 42\n+#define DRIVER_ANSWER 43\n"
    )
    patched = bench.build(patches=[str(patch)])
    assert patched.key != plain.key
    assert said(patched)["patches"][0]["name"] == "answer.patch"
    assert bench.build(patches=[]).key == plain.key


def test_a_series_switches_on_what_it_adds(bench: Bench, tmp_path: Path) -> None:
    quilt = tmp_path / "quilt"
    quilt.mkdir()
    (quilt / "series").write_text("feature.patch\n")
    (quilt / "lab.config").write_text("CONFIG_FEATURE=y\n")
    (quilt / "feature.patch").write_text(
        "A feature.\n\n--- a/Kconfig\n+++ b/Kconfig\n@@ -1,3 +1,6 @@\n"
        " # SPDX-License-Identifier: GPL-2.0-only\n+config FEATURE\n"
        '+\tbool "Feature"\n+\n config NET\n \tbool "Net"\n'
    )
    kernel = bench.build(patches=[str(quilt)])
    assert "CONFIG_FEATURE=y" in kernel.config.read_text()
    (quilt / "lab.config").write_text("CONFIG_FEATUR=y\n")
    with pytest.raises(UserError, match="did you mean CONFIG_FEATURE"):
        bench.build(patches=[str(quilt)])


def test_a_compiler_that_is_too_old_is_told(bench: Bench) -> None:
    bench.edit("scripts/min-tool-version.sh", "echo 5.1.0", "echo 99.1")
    with pytest.raises(HostError, match=r"wants gcc 99\.1 or newer"):
        bench.build()


def test_an_unmet_symbol_names_its_fragment(bench: Bench) -> None:
    bench.fragment.write_text("CONFIG_LZ4=y\nCONFIG_FILTER=y\n")
    with pytest.raises(UserError) as caught:
        bench.build()
    assert (caught.value.file, caught.value.line) == (bench.fragment, 2)
    assert "depends on NET, which is n" in str(caught.value)


def test_the_users_own_config_is_the_base(
    bench: Bench, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own.config"
    own.write_text("CONFIG_NET=y\nCONFIG_FILTER=y\nCONFIG_XZ=y\n")
    kernel = bench.build(config=own)
    assert "CONFIG_FILTER=y" in kernel.config.read_text()
    told = [line for line in capsys.readouterr().err.splitlines() if "becomes" in line]
    assert told == [
        f"{own}: CONFIG_LZ4=n becomes y, for {bench.fragment}:2",
        f"{own}: CONFIG_XZ=y becomes n, for {bench.fragment}:3",
    ]


def test_a_config_that_is_not_there(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such \.config"):
        bench.build(config=tmp_path / "gone")


def test_two_builds_at_once_make_one_kernel(bench: Bench) -> None:
    keys: list[str] = []

    # A Store of its own for each, as two processes have.
    def one() -> None:
        other = Bench.__new__(Bench)
        other.__dict__.update(bench.__dict__, store=Store(bench.store.root))
        keys.append(other.build().key)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(list(bench.store.root.glob("artifacts/kernel/*"))) == 1


SLOW = """
import sys
from pathlib import Path
from kernel_kit import Bench
from lab.store import Store
from lab.testing.aside import build_aside
from lab.testing.stages import Stage, Wanted
bench = Bench.__new__(Bench)
bench.home = Path(sys.argv[1])
bench.tree = bench.home / "linux"
bench.manifest = bench.home / "lab.local.yaml"
bench.store = Store(bench.home / "store")
bench.build()
"""


def processes_in(directory: Path) -> list[str]:
    """Command lines of living processes that name a directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in line:
            found.append(line)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_a_tree_to_go_on_with(bench: Bench, number: int) -> None:
    # One that make does not know itself: it ends its children, not theirs.
    slow = "touch $(O)/began; sleep $$(cat $(srctree)/init/slow); true"
    bench.edit("Makefile", "\t@ld -r", f"\t@{slow}\n\t@ld -r")
    (bench.tree / "init/slow").write_text("60\n")
    victim = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(bench.home)],
        cwd=Path(__file__).parent,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    hot = bench.store.root / f"hot/build/{bench.recipe().hot_name}-gcc"
    deadline = time.monotonic() + 30
    while not (hot / "tree/began").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    victim.send_signal(number)
    assert victim.wait(timeout=20) != 0
    assert (hot / "unclean").exists()
    (bench.tree / "init/slow").write_text("0\n")
    began = time.monotonic()
    kernel = bench.build()
    assert time.monotonic() - began < 30  # it did not wait for the 60 s of the first
    assert kernel.bzimage.exists()
    assert not (hot / "unclean").exists()
    assert not processes_in(hot)
    Store(bench.store.root)  # sweeps
    assert not list((bench.store.root / "tmp").glob("kernel-*"))


def test_healing_removes_what_was_written_last(tmp_path: Path) -> None:
    for name, age in (("old.o", 10 * SUSPECT), ("new.o", 1.0)):
        (tmp_path / name).write_text("x")
        (tmp_path / f".{name}.cmd").write_text("x")
        moment = time.time() - age
        os.utime(tmp_path / name, (moment, moment))
    (tmp_path / "no-product").write_text("x")
    assert heal(tmp_path) == 1
    assert (tmp_path / "old.o").exists()
    assert (tmp_path / "no-product").exists()
    assert not (tmp_path / "new.o").exists()
