# SPDX-License-Identifier: GPL-2.0-only
"""A test's directory is its own."""

from __future__ import annotations

import pytest

from lab.testing.trial import directory_name


def test_what_is_plain_stays_as_it_is() -> None:
    assert directory_name("tests/e2e/a/test_b.py::test_c[1-x=2]") == "a.test_b.test_c[1-x=2]"
    assert directory_name("test_b.py::test_c") == "test_b.test_c"
    assert directory_name("tests/e2e/a/test_b.py") == "a.test_b"


def test_files_of_the_same_name_do_not_share() -> None:
    paths = ("tests/e2e/a/b/test_c.py", "tests/e2e/a/test_c.py", "tests/a/test_c.py", "a/test_c.py",
             "test_c.py", "tests/e2e/a.b/test_c.py", "tests/e2e/test_c.py/test_d.py")  # fmt: skip
    names = {directory_name(f"{path}::test_x") for path in paths}
    assert len(names) == len(paths)
    assert all("/" not in name for name in names)


@pytest.mark.parametrize(
    ("one", "other"), [("[a b]", "[a;b]"), (f"[{'a' * 200}b]", f"[{'a' * 200}c]"), ("[é_]", "[é/]")]
)
def test_names_are_not_shared(one: str, other: str) -> None:
    names = {directory_name(f"tests/test_a.py::test_b{end}") for end in (one, other)}
    assert len(names) == 2
    assert all("/" not in name and len(name) < 130 for name in names)
