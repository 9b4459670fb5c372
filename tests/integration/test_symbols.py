# SPDX-License-Identifier: GPL-2.0-only
"""Frames of a module to files and lines, by real tools on what a real compiler made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from lab.watch.symbols import Place, Symbols, decode

#: Every section of a module begins at 0, so one address is in all of them.
SOURCE = """\
__attribute__((noreturn)) void dies(void) { for (;;); }

#define NOINSTR __attribute__((section(".noinstr.text")))
NOINSTR void calls(void) { dies(); }
NOINSTR void follows(void) { }
"""


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A file like the kernel's wifi-driver.ko, which it lists as wifi_driver."""
    source, module = tmp_path / "driver.c", tmp_path / "net" / "wifi-driver.ko"
    source.write_text(SOURCE)
    module.parent.mkdir()
    # As kbuild names files; it says "./" of the place that it builds in, too.
    subprocess.run(["gcc", "-g", "-c", "././driver.c", "-o", module], cwd=tmp_path, check=True)
    return module


@pytest.fixture
def symbols(module: Path) -> Symbols:
    return Symbols(Path("/no/vmlinux"), [module.parent.parent])


def size(module: Path, function: str) -> int:
    """Bytes of a function."""
    said = subprocess.check_output(["nm", "--print-size", module], text=True)
    table = (text.split() for text in said.splitlines())
    return next(int(words[1], 16) for words in table if words[-1] == function)


def shown(place: Place) -> tuple[str, str, int]:
    return place.function, Path(place.file).name, place.line


def test_a_frame_is_looked_for_in_its_own_section(module: Path, symbols: Symbols) -> None:
    frame = f"calls+0x0/{size(module, 'calls'):#x} [wifi_driver]"
    (place,) = symbols.resolve([frame], report=["Oops: 0000", f"RIP: 0010:{frame}"])
    assert shown(place) == ("calls", "driver.c", 4)
    assert "./" not in place.file


def test_a_call_that_never_returns_is_where_it_was_made(module: Path, symbols: Symbols) -> None:
    end = f"{size(module, 'calls'):#x}"
    (place,) = symbols.resolve([f"calls+{end}/{end} [wifi_driver]"], report=["Call Trace:"])
    assert shown(place) == ("calls", "driver.c", 4)


def test_what_nobody_knows_stays_as_it_is(symbols: Symbols) -> None:
    stack = ["calls+0x0/0x10 [other]", "nobody+0x0/0x10 [wifi_driver]"]
    assert decode(stack, symbols, report=[]).split() == [
        "calls+0x0/0x10", "[other]", "?", "nobody+0x0/0x10", "[wifi_driver]", "?",
    ]  # fmt: skip
