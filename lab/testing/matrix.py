# SPDX-License-Identifier: GPL-2.0-only
"""Several kernels in one run: what stands is tested while the rest is built.

A stage that cannot be built takes nobody with it: it stands in the report
with its error, and its exit status counts.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from lab.errors import InfraError, LabError
from lab.progress import note

S = TypeVar("S", bound="Named")
B = TypeVar("B")


class Named(Protocol):
    """What can be told to a person."""

    @property
    def name(self) -> str:
        """As the report shows it."""


@dataclass(frozen=True)
class Outcome(Generic[S, B]):
    """A stage, and what came of it: it is built, or there is an error."""

    stage: S
    built: B | None = None
    error: LabError | None = None


Aside = Callable[[S, threading.Event], None]
"""Builds a stage in another process, until the event is set; raises LabError."""


def bring(
    stages: Sequence[S],
    *,
    is_ready: Callable[[S], bool],
    build: Callable[[S], B],
    aside: Aside[S],
) -> Iterator[list[Outcome[S, B]]]:
    """Stages as they come to stand, in batches: whoever asks tests one batch meanwhile.

    First come all that the store has.  Where it has none, the first that can
    be built is built at once, by ourselves: nobody has anything else to do.

    Args:
        is_ready: whether ``build`` will be quick.
    """
    batch: list[Outcome[S, B]] = []
    waiting: list[S] = []
    for stage in stages:
        outcome = _attempt(stage, lambda stage: stage if is_ready(stage) else None)
        if outcome.error is not None:
            batch.append(Outcome(stage, error=outcome.error))
        elif outcome.built is None:
            waiting.append(stage)
        else:
            batch.append(_attempt(stage, build))
    while waiting and not any(outcome.built for outcome in batch):
        batch.append(_attempt(waiting.pop(0), build))
    builder = _Builder(waiting, aside)
    try:
        if batch:
            yield batch
        while builder.left:
            yield [
                Outcome(stage, error=error) if error else _attempt(stage, build)
                for stage, error in builder.come()
            ]
    finally:
        builder.stop()


def _attempt(stage: S, do: Callable[[S], B | None]) -> Outcome[S, B]:
    try:
        return Outcome(stage, built=do(stage))
    except LabError as error:
        return Outcome(stage, error=error)


class _Builder(Generic[S]):
    """One thread that builds one stage after the other: two at once would only share cores."""

    def __init__(self, stages: Sequence[S], aside: Aside[S]) -> None:
        self.left = len(stages)
        self._stages = stages
        self._aside = aside
        self._done: queue.SimpleQueue[tuple[S, LabError | None]] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="builder")
        if stages:
            self._thread.start()

    def _work(self) -> None:
        for stage in self._stages:
            if self._stopped.is_set():
                return
            self._done.put((stage, self._error_of(stage)))

    def _error_of(self, stage: S) -> LabError | None:
        try:
            self._aside(stage, self._stopped)
        except LabError as error:
            return error
        except Exception as error:  # a thread that dies in silence would be waited for
            return InfraError(f"{type(error).__name__}: {error}")
        return None

    def come(self) -> Iterator[tuple[S, LabError | None]]:
        """What has come since the last time; waits for one where nothing has."""
        if self._done.empty():
            note(f"nothing left to test; waiting for {self.left} more to be built")
        while True:
            # Bounded, for a signal's handler to run.
            try:
                stage, error = self._done.get(timeout=0.2)
            except queue.Empty:
                continue
            self.left -= 1
            yield stage, error
            if self._done.empty():
                return

    def stop(self) -> None:
        """End the build that runs, and begin no other."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()
