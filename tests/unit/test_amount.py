# SPDX-License-Identifier: GPL-2.0-only
"""How often a test does its thing."""

from __future__ import annotations

import pytest

from lab.testing.fixtures import how_many


@pytest.mark.parametrize(
    ("patience", "environment", "wanted"),
    [
        (1.0, {}, 100_000),
        (1.0, {"CI": ""}, 100_000),
        (1.0, {"CI": "true"}, 2_000),
        (4.0, {}, 2_000),
    ],
)
def test_few_in_ci_and_where_each_takes_long(
    patience: float, environment: dict[str, str], wanted: int
) -> None:
    assert how_many(100_000, few=2_000, patience=patience, environment=environment) == wanted
