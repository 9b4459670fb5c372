# SPDX-License-Identifier: GPL-2.0-only
"""What the host must have."""

from __future__ import annotations


def package_of(program: str) -> str | None:
    """The Debian package that brings a program."""
    return None
