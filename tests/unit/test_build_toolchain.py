# SPDX-License-Identifier: GPL-2.0-only
"""Which compiler is taken, out of what a host has (programs faked in a PATH)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab.errors import HostError
from lab.kernel import toolchain
from lab.kernel.toolchain import find_toolchain, minimums

LEAST = {"gcc": (8, 1, 0), "llvm": (15, 0, 0)}

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts programs into an otherwise empty PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    toolchain._first_line.cache_clear()

    def put(**versions: str) -> None:
        for name, version in versions.items():
            path = tmp_path / name.replace("_", "-").replace("lld", "ld.lld")
            path.write_text(f"#!/bin/sh\necho '{version}'\n")
            path.chmod(0o755)

    put(pahole="v1.24", make="GNU Make 4.3")
    yield put
    toolchain._first_line.cache_clear()


def gnu(install: Install, version: str = "12.2.0") -> None:
    install(gcc=f"gcc (Debian 7.0-1) {version}", ld="GNU ld 2.40", objcopy="GNU objcopy 2.40")


def llvm(install: Install, version: str, suffix: str = "") -> None:
    for tool in ("clang", "lld", "llvm_objcopy"):
        install(**{f"{tool}{suffix}": f"Debian {tool} version {version}"})


def test_gcc_with_its_versions(install: Install) -> None:
    gnu(install)
    found = find_toolchain(least=LEAST)
    assert found.versions["cc"] == "gcc (Debian 7.0-1) 12.2.0"
    assert (found.name, found.variables, found.ccache) == ("gcc", {}, False)


def test_ccache_is_used_where_it_is(install: Install) -> None:
    gnu(install)
    install(ccache="ccache version 4.8")
    assert find_toolchain(least=LEAST).variables["CC"] == "ccache gcc"


def test_a_gcc_that_is_too_old(install: Install) -> None:
    gnu(install, "8.0.9")
    with pytest.raises(HostError, match=r"wants gcc 8\.1\.0 or newer"):
        find_toolchain(least=LEAST)


def test_a_missing_program_names_its_package(install: Install) -> None:
    install(ld="GNU ld 2.40", objcopy="GNU objcopy 2.40")
    with pytest.raises(HostError, match=r"`gcc` is not installed.*Debian package"):
        find_toolchain(least=LEAST)


def test_plain_clang_comes_first(install: Install) -> None:
    llvm(install, "16.0.6")
    llvm(install, "19.1.0", "_19")
    found = find_toolchain(llvm=True, least=LEAST)
    assert (found.name, found.variables) == ("llvm", {"LLVM": "1"})


def test_the_newest_clang_if_the_plain_one_is_too_old(install: Install) -> None:
    llvm(install, "14.0.6")
    llvm(install, "16.0.6", "_16")
    llvm(install, "19.1.0", "_19")
    install(ccache="ccache version 4.8")
    found = find_toolchain(llvm=True, least=LEAST)
    assert found.name == "llvm-19"
    assert found.variables == {
        "LLVM": "-19",
        "CC": "ccache clang-19",
        "HOSTCC": "ccache clang-19",
    }


def test_a_clang_without_its_lld_does_not_count(install: Install) -> None:
    llvm(install, "14.0.6")
    install(clang_19="clang version 19.1.0")
    with pytest.raises(HostError, match=r"wants clang and lld 15\.0\.0 or newer"):
        find_toolchain(llvm=True, least=LEAST)


def test_the_least_versions_come_from_the_kernel(tmp_path: Path) -> None:
    script = tmp_path / "scripts/min-tool-version.sh"
    script.parent.mkdir()
    script.write_text("case $1 in gcc) echo 8.1.0 ;; llvm) echo 13.0.1 ;; esac\n")
    assert minimums(tmp_path) == {"gcc": (8, 1, 0), "llvm": (13, 0, 1)}


def test_a_kernel_that_says_nothing_takes_any(tmp_path: Path) -> None:
    assert minimums(tmp_path) == {"gcc": (0,), "llvm": (0,)}
