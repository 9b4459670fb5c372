# SPDX-License-Identifier: GPL-2.0-only
"""BPF programs of tests, compiled on the host."""

from __future__ import annotations

from pathlib import Path

from lab import process

# linux/bpf.h wants asm/types.h, which Debian keeps by architecture.
_FLAGS = ("-O2", "-g", "-Wall", "-target", "bpf", "-I/usr/include/x86_64-linux-gnu")


def compiled(source: Path, directory: Path, *options: str) -> Path:
    """The object of a BPF program, made in a directory.

    Raises:
        LabError: clang is not there, or refuses the program.
    """
    made = directory / source.with_suffix(".o").name
    process.run(["clang", *_FLAGS, *options, "-c", str(source), "-o", str(made)])
    return made
