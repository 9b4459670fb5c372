# SPDX-License-Identifier: GPL-2.0-only
"""BPF programs of tests, compiled on the host for the kernel under test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lab import process
from lab.kernel.artifact import Kernel
from lab.store import Store

_FLAGS = ("-O2", "-g", "-Wall", "-target", "bpf")


@dataclass(frozen=True)
class Compiler:
    """Called with a source, and options of clang's, it gives the object.

    Attributes:
        types: the directory of vmlinux.h, see ``types_of``.
        directory: where objects are made.
    """

    types: Path
    directory: Path

    def __call__(self, source: Path, *options: str) -> Path:
        """The object of a BPF program.

        Raises:
            LabError: clang is not there, or refuses the program.
        """
        made = self.directory / source.with_suffix(".o").name
        flags = (*_FLAGS, f"-I{self.types}", *options)
        process.run(["clang", *flags, "-c", str(source), "-o", str(made)])
        return made


def types_of(kernel: Kernel, store: Store) -> Path:
    """A directory with vmlinux.h: the types that a kernel's BTF describes, in C.

    Made once for each kernel, and kept in the store.  Macros are not in it.

    Raises:
        LabError: bpftool is not there, or finds no BTF in the kernel.
    """

    def build(content: Path) -> None:
        dump = ["bpftool", "btf", "dump", "file", str(kernel.vmlinux), "format", "c"]
        (content / "vmlinux.h").write_text(process.run(dump).stdout, encoding="utf-8")

    bpftool = process.run(["bpftool", "version"]).stdout
    return store.make("bpf-types", {"kernel": kernel.key, "bpftool": bpftool}, build).path
