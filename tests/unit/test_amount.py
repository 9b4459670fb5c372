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


@pytest.mark.parametrize(
    ("patience", "environment", "wanted"),
    [(1.0, {}, 10_000), (4.0, {}, 10_000), (1.0, {"CI": "true"}, 500), (4.0, {"CI": "true"}, 500)],
)
def test_fewer_in_ci_alone(patience: float, environment: dict[str, str], wanted: int) -> None:
    assert how_many(10_000, in_ci=500, patience=patience, environment=environment) == wanted
