# SPDX-License-Identifier: GPL-2.0-only
"""Follow the consoles of running machines and say what their kernels said, and when."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from lab.kernel.artifact import Kernel
from lab.watch.event import Event
from lab.watch.parser import Parser, parse
from lab.watch.policy import Policy, load_policy

#: Seconds between two looks at the consoles, while a test runs.
LOOK = 0.1
#: Begins what the lab itself writes into a guest's kernel log.
MARK = "lab: mark "
_CHUNK = 1 << 20
#: Bytes of one console that are parsed whole; of what a guest writes beyond them,
#: the latest megabyte is read at each look, so that reading never falls behind.
FLOOD = 32 << 20


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """An event, and who is to blame for it.

    Attributes:
        node: the machine's name.
        phase: what the test was doing when the report began ("setup", "test",
            "teardown", ...).
        when: seconds since the watch began.
        noise: the policy's reason to excuse it, or None.
    """

    node: str
    phase: str
    when: float
    event: Event
    noise: str | None = None

    @property
    def counts(self) -> bool:
        """True where somebody must answer for it."""
        return self.noise is None and self.event.severity != "note"


@dataclass
class _Console:
    node: str
    path: Path
    parser: Parser
    version: str
    flavour: str
    offset: int = 0
    parsed: int = 0
    whole: int = 0
    rest: bytes = b""
    phase: str = ""
    when: float = 0.0
    tail: bytes = b""
    mark: str = ""
    flooded: bool = False


@dataclass
class Watch:
    """Watches the consoles of one test's machines.

    A thread of its own looks at them from the first `follow` to `close`, so
    that a report has the moment at which it came. Call `poll` at will, from any
    thread, to see all that was written before the call.
    """

    kernel: str
    flavour: str
    policy: Policy = field(default_factory=load_policy)
    phase: str = "setup"

    def __post_init__(self) -> None:
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._consoles: dict[str, _Console] = {}
        self._sightings: list[Sighting] = []
        self._closed = threading.Event()
        self._looking: threading.Thread | None = None

    @property
    def sightings(self) -> tuple[Sighting, ...]:
        """Everything seen so far, noise and notes included."""
        with self._lock:
            return tuple(self._sightings)

    @property
    def now(self) -> float:
        """Seconds since the watch began."""
        return time.monotonic() - self._began

    def follow(
        self, node: str, log: Path, *, offset: int = 0, kernel: Kernel | None = None
    ) -> None:
        """Follow a console from a byte of its log on; the file may come later.

        Args:
            kernel: of the node, where it may be another than the watch's.
        """
        with self._lock:
            self._consoles[node] = _Console(
                node=node,
                path=log,
                parser=Parser(self.policy),
                version=kernel.version if kernel else self.kernel,
                flavour=kernel.flavour if kernel else self.flavour,
                offset=offset,
                whole=offset,
            )
            if self._looking is None:
                self._looking = threading.Thread(target=self._look, name="watch", daemon=True)
                self._looking.start()

    def _look(self) -> None:
        while not self._closed.wait(LOOK):
            self.poll()

    def close(self) -> None:
        """Look no more by itself."""
        self._closed.set()
        if self._looking is not None:
            self._looking.join()

    def leave(self, node: str) -> int:
        """Follow a console no more; the byte of its log at which whoever goes on begins.

        What it has read of a line without end is theirs too.
        """
        with self._lock:
            return self._consoles.pop(node).whole

    def enter(self, phase: str) -> None:
        """What is written from now on belongs to another phase of the test."""
        self.poll()
        self.phase = phase

    def poll(self) -> None:
        """Read what the consoles have got since the last time."""
        with self._lock:
            for console in self._consoles.values():
                self._read(console)

    def finish(self, *, patience: float = 0.0) -> None:
        """Read to the end and close reports that are still open.

        Args:
            patience: seconds to wait for the rest of such a report.
        """
        self.poll()
        deadline = time.monotonic() + patience
        while self._is_open() and time.monotonic() < deadline:
            before = self._offsets()
            time.sleep(min(0.15, patience))
            self.poll()
            if self._offsets() == before:
                break
        with self._lock:
            for console in self._consoles.values():
                if console.rest:
                    line, console.rest = console.rest, b""
                    self._line(console, line)
                self._note(console, console.parser.flush())

    def wait_for(self, node: str, text: str, *, timeout: float) -> bool:
        """Whether a text came up on a console of late, or comes within `timeout` seconds.

        The latest mark of the lab's own is remembered however much came after it.
        """
        deadline = time.monotonic() + timeout
        wanted = text.encode()
        while True:
            self.poll()
            console = self._consoles[node]
            if wanted in console.tail or text == console.mark:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.01)

    def flooded(self, node: str) -> bool:
        """Whether a console held more than the watch reads whole."""
        return self._consoles[node].flooded

    def _is_open(self) -> bool:
        return any(console.parser.open for console in self._consoles.values())

    def _offsets(self) -> list[int]:
        return [console.offset for console in self._consoles.values()]

    def _read(self, console: _Console) -> None:
        try:
            with console.path.open("rb") as log:
                size = log.seek(0, 2)
                if size < console.offset:
                    # A cold boot after a clone that failed has the log anew.
                    console.offset, console.whole, console.rest = 0, 0, b""
                if console.parsed + size - console.offset > FLOOD:
                    console.flooded = True
                    console.offset = max(console.offset, size - _CHUNK)
                    console.rest = b""
                log.seek(console.offset)
                while chunk := log.read(_CHUNK):
                    console.offset += len(chunk)
                    console.parsed += len(chunk)
                    self._take(console, chunk)
        except FileNotFoundError:
            return

    def _take(self, console: _Console, chunk: bytes) -> None:
        console.tail = (console.tail + chunk)[-8192:]
        *lines, console.rest = (console.rest + chunk).split(b"\n")
        # A line without end must not grow for ever.
        console.rest = console.rest[-65536:]
        console.whole = console.offset - len(console.rest)
        for line in lines:
            self._line(console, line)

    def _line(self, console: _Console, line: bytes) -> None:
        was_open = console.parser.open
        text = line.decode(errors="replace")
        if MARK in text:
            # It stands in nobody's report; the line counts.
            console.mark = MARK + text.partition(MARK)[2].strip()
            text = ""
        events = console.parser.feed(text)
        self._note(console, events)
        if console.parser.open and (events or not was_open):
            console.phase, console.when = self.phase, self.now
        elif not console.parser.open:
            console.phase = ""

    def _note(self, console: _Console, events: list[Event]) -> None:
        for event in events:
            self._sightings.append(
                Sighting(
                    node=console.node,
                    phase=console.phase or self.phase,
                    when=round(console.when if console.phase else self.now, 3),
                    event=event,
                    noise=self.policy.excuse(
                        event, kernel=console.version, flavour=console.flavour
                    ),
                )
            )
            console.phase = ""


def objection(log: str, *, kernel: str, flavour: str, policy: Policy | None = None) -> str | None:
    """Why a machine with this log must not be frozen, or None."""
    rules = policy or load_policy()
    for event in parse(log.splitlines(), policy=rules):
        if event.severity == "note":
            continue
        if rules.excuse(event, kernel=kernel, flavour=flavour) is None:
            return f"{event.kind}: {event.title}"
    return None
