# SPDX-License-Identifier: GPL-2.0-only
"""docs/lkdtm.md says what the tests of the crash types expect."""

from __future__ import annotations

import sys

import pytest

from lab.testing.rig import checkout

sys.path.append(str(checkout() / "tests/e2e/lab"))

import lkdtm

#: Share of the types that may be silent or left out.
QUIET = 0.25


def test_the_page_is_the_table() -> None:
    assert (checkout() / "docs/lkdtm.md").read_text() == lkdtm.page()


@pytest.mark.parametrize(("line", "flavour"), lkdtm.SEEN)
def test_few_are_silent(line: str, flavour: str) -> None:
    types = {
        name: entry
        for group in lkdtm.types_of(lkdtm.read(), line).values()
        for name, entry in group.items()
    }
    silent = [name for name, entry in types.items() if not lkdtm.wanted(entry, line, flavour)[0]]
    assert len(silent) <= QUIET * len(types), silent
