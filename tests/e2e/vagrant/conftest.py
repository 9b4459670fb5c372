# SPDX-License-Identifier: GPL-2.0-only
"""These tests are about Vagrant's machines: `./run e2e -- --provider vagrant tests/e2e/vagrant`.

Other runs do not collect them; with that provider none is skipped, whatever is missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.testing.cell import load_cell


def pytest_ignore_collect(config: pytest.Config) -> bool | None:
    """Only a cell of this provider has them."""
    cell = config.getoption("--lab-cell", None)
    if cell is None or load_cell(Path(cell)).provider != "vagrant":
        return True
    return None
