# SPDX-License-Identifier: GPL-2.0-only
"""The lab imports tests by file, so their neighbours are on no path."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.extend(str(path) for path in sorted(Path(__file__).parent.iterdir()) if path.is_dir())
