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


def test_what_it_says_between_two_tests_is_neithers(inner: Runner) -> None:
    run = inner(
        """
        class Between:
            def __init__(self, machine):
                self.machine = machine

            def pytest_runtest_logfinish(self):
                machine, self.machine = self.machine, None
                if machine is not None:
                    machine.execute("echo '<4>BUG: scheduling while atomic: me/1/0x2' >/dev/kmsg")

        def test_first(machine, request):
            machine.succeed("touch /tmp/here")
            request.config.pluginmanager.register(Between(machine))

        def test_second(machine):
            machine.fail("test -e /tmp/here")
        """,
        shared=True,
    )
    assert run.status == 1, run.output
    assert run.statuses == {
        "test_first": "passed",
        "test_second": "passed",
        "between tests": "kernel",
    }
    assert "scheduling while atomic: me" in run["between tests"].message
    assert (run.directory / "bundles").is_dir()


def test_a_splat_that_was_asked_for_costs_the_machine(inner: Runner) -> None:
    run = inner(
        """
        @pytest.mark.splat("scheduling while atomic: me")
        def test_asks(machine):
            machine.succeed("touch /tmp/here")
            machine.succeed("echo '<4>BUG: scheduling while atomic: me/1/0x2' >/dev/kmsg")

        def test_next(machine):
            machine.fail("test -e /tmp/here")
        """,
        shared=True,
    )
    assert run.status == 0, run.output
    assert run.statuses == {"test_asks": "passed", "test_next": "passed"}
