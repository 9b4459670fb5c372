# SPDX-License-Identifier: GPL-2.0-only
"""One machine for all tests of a cell, as under sanitizers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.limit(400), pytest.mark.slow]

Runner = Callable[..., Any]


def test_who_shares_finds_what_others_left_and_the_rest_is_left_out(inner: Runner) -> None:
    run = inner(
        """
        def test_first(machine):
            machine.succeed("touch /tmp/here")

        def test_second(machine):
            machine.succeed("test -e /tmp/here")

        @pytest.mark.fresh
        def test_pristine(machine):
            machine.fail("test -e /tmp/here")

        @pytest.mark.machine(memory=256)
        def test_small(machine):
            machine.fail("test -e /tmp/here")

        def test_network(net):
            pass
        """,
        shared=True,
    )
    assert run.status == 0, run.output
    assert run.statuses == {"test_first": "passed", "test_second": "passed"}


def test_a_cell_where_nobody_shares_is_no_failure(inner: Runner) -> None:
    run = inner("def test_network(net): pass", shared=True)
    assert (run.status, run.statuses) == (0, {}), run.output
