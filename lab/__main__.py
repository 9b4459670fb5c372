# SPDX-License-Identifier: GPL-2.0-only
"""``python -m lab``: the same as ``lab``."""

from lab.cli import main

main()
