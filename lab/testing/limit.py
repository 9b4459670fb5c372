# SPDX-License-Identifier: GPL-2.0-only
"""A test's time limit: its machines are ended, and it is, whatever it waits for."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from lab.testing.verdict import TestOverLimit

#: Seconds that a test has to end by itself once its machines are gone.
_GRACE = 5.0


#: Seconds between looks at a pause that has outlasted the limit.
_POLL = 0.1


class Limit:
    """A context; raises TestOverLimit in the block when the limit passes.

    A thread does the work, so that stacks can be taken while the test still
    waits for its machine. Works in the main thread, where pytest runs tests.

    Args:
        seconds: the limit.
        expired: called in the thread when it passes; ends the machines.
    """

    def __init__(self, seconds: float, expired: Callable[[], None]) -> None:
        self.seconds = seconds
        self.passed = False
        self._expired = expired
        self._done = threading.Event()
        self._main = threading.get_ident()
        self._thread = threading.Thread(target=self._wait, name="test-limit", daemon=True)
        self._before: object = signal.SIG_DFL
        self._deadline = time.monotonic() + seconds
        self._paused = 0
        self._paused_at = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within the block time does not count; several threads may be in one at once."""
        with self._lock:
            if not self._paused:
                self._paused_at = time.monotonic()
            self._paused += 1
        try:
            yield
        finally:
            with self._lock:
                self._paused -= 1
                if not self._paused:
                    self._deadline += time.monotonic() - self._paused_at

    def __enter__(self) -> Limit:
        self._deadline = time.monotonic() + self.seconds
        self._before = signal.signal(signal.SIGALRM, self._raise)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._done.set()
        finally:
            # The alarm may come right here.
            self._done.set()
            self._thread.join()
            signal.signal(signal.SIGALRM, self._before)  # type: ignore[arg-type]
        if self.passed and not isinstance(error, TestOverLimit):
            # Where in the test it happened is told by the wait that it cut short.
            over = TestOverLimit(self._text())
            raise over.with_traceback(error.__traceback__ if error else None) from None

    def _wait(self) -> None:
        while True:
            with self._lock:
                left = self._deadline - time.monotonic()
                if left <= 0 and not self._paused:
                    break
            if self._done.wait(max(left, _POLL)):
                return
        self.passed = True
        try:
            self._expired()
        finally:
            # Its wait for a machine has ended with the machine; a loop of its
            # own has not, and may try what has failed again and again.
            while not self._done.wait(_GRACE):
                signal.pthread_kill(self._main, signal.SIGALRM)

    def _raise(self, *_: int | FrameType | None) -> None:
        raise TestOverLimit(self._text())

    def _text(self) -> str:
        return f"the test took longer than its limit of {self.seconds:g} s"
