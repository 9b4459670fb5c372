# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's selftests, of a fake tree that builds in milliseconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kernel_kit import Bench

from lab.errors import KernelError, UserError
from lab.kernel.kselftest import Selftests, build_selftests

# What the real one does of it: each target builds, lists and installs its own.
TOP = """\
install:
\t@mkdir -p $(INSTALL_PATH)
\t@: > $(INSTALL_PATH)/kselftest-list.txt
\t@for one in $(TARGETS); do $(MAKE) -i -C $$one install TARGET=$$one; done
"""
NET = """\
install:
\t@mkdir -p $(INSTALL_PATH)/$(TARGET)
\t@echo "$(LLVM) $(ARCH)" > $(INSTALL_PATH)/$(TARGET)/compiler
\t@echo $(TARGET):compiler >> $(INSTALL_PATH)/kselftest-list.txt
"""
BROKEN = """\
install:
\t@echo "tls.c:46:13: error: too many arguments to function 'init'" >&2
\t@mkdir -p $(INSTALL_PATH)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    with (bench.tree / "Makefile").open("a") as file:
        file.write("\nheaders:\n")
    for target, text in {".": TOP, "net": NET, "none": "install:\n", "broken": BROKEN}.items():
        place = bench.tree / "tools/testing/selftests" / target
        place.mkdir(parents=True, exist_ok=True)
        (place / "Makefile").write_text(text)
    return bench


def selftests(bench: Bench, *targets: str, llvm: bool = False) -> Selftests:
    return build_selftests(bench.recipe(llvm=llvm), targets, store=bench.store)


def test_programs_are_those_of_the_targets(bench: Bench) -> None:
    found = selftests(bench, "net", "none")
    assert found.programs == ("net:compiler",)
    assert (found.path / "net/compiler").read_text() == " x86_64\n"


@pytest.mark.skipif(shutil.which("clang") is None, reason="clang is not installed")
def test_clang_builds_what_the_key_says_it_did(bench: Bench) -> None:
    usual = selftests(bench, "net")
    found = selftests(bench, "net", llvm=True)
    assert found.key != usual.key
    llvm = (found.path / "net/compiler").read_text().split()[0]
    assert llvm == "1" or llvm.startswith("-")


def test_a_target_without_programs_is_no_success(bench: Bench) -> None:
    with pytest.raises(UserError, match="no program in the selftests none"):
        selftests(bench, "none")


def test_what_does_not_compile_is_told_where_nothing_is_listed(bench: Bench) -> None:
    with pytest.raises(KernelError, match="too many arguments"):
        selftests(bench, "broken")
