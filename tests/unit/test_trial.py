# SPDX-License-Identifier: GPL-2.0-only
"""A test's directory is its own."""

from __future__ import annotations

import pytest

from lab.testing.trial import directory_name


def test_what_is_plain_stays_as_it_is() -> None:
    assert directory_name("tests/e2e/a/test_b.py::test_c[1-x=2]") == "test_b.test_c[1-x=2]"


@pytest.mark.parametrize(
    ("one", "other"), [("[a b]", "[a;b]"), (f"[{'a' * 200}b]", f"[{'a' * 200}c]"), ("[é_]", "[é/]")]
)
def test_names_are_not_shared(one: str, other: str) -> None:
    names = {directory_name(f"tests/test_a.py::test_b{end}") for end in (one, other)}
    assert len(names) == 2
    assert all("/" not in name and len(name) < 130 for name in names)
