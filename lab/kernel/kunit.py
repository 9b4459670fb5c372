# SPDX-License-Identifier: GPL-2.0-only
"""KUnit tests of a built kernel: which of its modules hold suites."""

from __future__ import annotations

import fnmatch

from lab.kernel.artifact import Kernel

FRAGMENT = "kunit"
"""What is laid on top of a flavour (lab/kernel/configs)."""

SECTIONS = (b".kunit_test_suites\0", b".kunit_init_test_suites\0")
"""Where a module that is more than somebody's helper keeps its suites."""


def suite_modules(kernel: Kernel, pattern: str = "*") -> tuple[str, ...]:
    """Names of the modules with suites, as modprobe takes them, sorted.

    Args:
        pattern: a glob; `-` and `_` are one, as for modprobe.
    """
    wanted = pattern.replace("-", "_")
    names = {
        file.stem.replace("-", "_"): file
        for file in kernel.modules.glob("kernel/**/*.ko")
        if fnmatch.fnmatchcase(file.stem.replace("-", "_"), wanted)
    }
    return tuple(sorted(name for name, file in names.items() if _has_suites(file.read_bytes())))


def _has_suites(module: bytes) -> bool:
    return any(section in module for section in SECTIONS)
