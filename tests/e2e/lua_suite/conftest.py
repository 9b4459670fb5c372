# SPDX-License-Identifier: GPL-2.0-only
"""The lab imports tests by file, so their neighbours are on no path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
