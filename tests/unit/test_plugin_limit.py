# SPDX-License-Identifier: GPL-2.0-only
"""A test's time limit ends it, whatever it waits for."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from lab.testing import limit as limits
from lab.testing.limit import Limit
from lab.testing.verdict import TestOverLimit


def test_nothing_happens_within_the_limit() -> None:
    called: list[int] = []
    with Limit(10, lambda: called.append(1)) as limit:
        pass
    assert not limit.passed
    assert called == []


def test_a_wait_that_ends_with_the_machine() -> None:
    gone = threading.Event()

    def wait() -> None:
        assert gone.wait(10)
        raise ConnectionError("the machine is gone")

    with pytest.raises(TestOverLimit, match=r"limit of 0\.1 s"), Limit(0.1, gone.set):
        wait()


def test_a_loop_that_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_GRACE", 0.1)
    began = time.monotonic()
    with pytest.raises(TestOverLimit), Limit(0.1, lambda: None):
        while time.monotonic() < began + 10:
            pass
    assert time.monotonic() - began < 5


def test_a_loop_that_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As tests wait for a service: what ends them is no error to try again after."""
    monkeypatch.setattr(limits, "_GRACE", 0.1)
    until = time.monotonic() + 10
    with pytest.raises(TestOverLimit), Limit(0.1, lambda: None):
        while time.monotonic() < until:
            with contextlib.suppress(Exception):
                time.sleep(0.05)
                raise ConnectionError("the machine is gone")


def test_what_catches_everything_is_ended_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_GRACE", 0.05)
    caught, until = 0, time.monotonic() + 10
    with pytest.raises(TestOverLimit), Limit(0.1, lambda: None):
        while caught < 2 and time.monotonic() < until:
            try:
                time.sleep(1)
            except BaseException:
                caught += 1
    assert caught == 2


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), Limit(10, lambda: None):
        raise KeyError("mine")


def test_time_in_a_pause_does_not_count() -> None:
    with Limit(0.2, lambda: None) as limit:
        with limit.paused(), limit.paused():
            time.sleep(0.5)
        assert not limit.passed


def test_time_after_a_pause_counts() -> None:
    gone = threading.Event()
    with pytest.raises(TestOverLimit), Limit(0.2, gone.set) as limit:
        with limit.paused():
            time.sleep(0.3)
        assert gone.wait(10)
