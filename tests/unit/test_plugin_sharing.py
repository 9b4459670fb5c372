# SPDX-License-Identifier: GPL-2.0-only
"""Which tests get the machine of all."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.testing.shared import may_share


def mark(name: str, **words: object) -> pytest.Mark:
    # The plugin that knows these by pytest.mark is not in the unit tests.
    return pytest.Mark(name, (), words, _ispytest=True)


def item(*marks: pytest.Mark, fixtures: tuple[str, ...] = ("machine",)) -> pytest.Item:
    def closest(name: str) -> Any:
        return next((one for one in marks if one.name == name), None)

    return cast(
        "pytest.Item",
        SimpleNamespace(
            fixturenames=fixtures,
            get_closest_marker=closest,
            iter_markers=lambda name: (one for one in marks if one.name == name),
        ),
    )


def test_plain_ones_share_and_those_that_only_prepare() -> None:
    assert may_share(item())
    assert may_share(item(mark("machine", prepare=("true",))))
    assert may_share(item(mark("limit")))


def test_a_shape_and_a_wish_do_not() -> None:
    assert not may_share(item(mark("machine", cpus=2)))
    assert not may_share(item(mark("machine", prepare=("true",)), mark("machine", cpus=2)))
    assert not may_share(item(mark("fresh")))
    assert not may_share(item(fixtures=("net",)))
