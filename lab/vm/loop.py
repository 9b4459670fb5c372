# SPDX-License-Identifier: GPL-2.0-only
"""One asyncio loop in a thread of its own, behind plain blocking calls.

qemu.qmp speaks asyncio; tests are plain functions, and several threads of
them may wait for several guests at once.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that an interrupted coroutine has to clean up.
CLEANUP = 5.0

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_owner = 0


def loop() -> asyncio.AbstractEventLoop:
    """This process's loop, started at the first call."""
    global _loop, _owner  # noqa: PLW0603 - one a process is what it is for
    with _lock:
        if _loop is None or _owner != os.getpid():
            _loop = asyncio.new_event_loop()
            _owner = os.getpid()
            threading.Thread(target=_loop.run_forever, name="lab-io", daemon=True).start()
        return _loop


def future() -> asyncio.Future[T]:
    """A new future of the loop, for whoever is not on it."""

    async def make() -> asyncio.Future[T]:
        return asyncio.get_running_loop().create_future()

    return call(make())


def call(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and wait for it.

    Ctrl-C cancels it, and waits a little for it to clean up.
    """
    ended = threading.Event()

    async def watched() -> T:
        try:
            return await work
        finally:
            ended.set()

    future = asyncio.run_coroutine_threadsafe(watched(), loop())
    try:
        return future.result()
    except BaseException:
        if future.cancel():
            ended.wait(CLEANUP)
        raise
