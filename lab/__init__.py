# SPDX-License-Identifier: GPL-2.0-only
"""Lunatik Lab: kernels, patched, with Lua inside, proved by test in virtual machines."""

__version__ = "0.1.0"
