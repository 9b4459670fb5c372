# SPDX-License-Identifier: GPL-2.0-only
"""What a bad wire does to frames, in one direction; made by netem in a bridge node."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from lab.manifest import Entry

Time = Annotated[str, Field(pattern=r"^\d+(\.\d+)?(us|ms|s)$")]
Percent = Annotated[str, Field(pattern=r"^(100|\d{1,2}(\.\d+)?)%$")]
Rate = Annotated[str, Field(pattern=r"^\d+(bit|kbit|mbit|gbit)$")]

#: Frames that netem holds at most. Its default of 1000 loses frames of its own
#: accord at 100 ms and 120 Mbit/s, which is what a TCP stream reaches here.
QUEUE = 20000


class Impairment(Entry):
    """A wire's faults in one direction; what is None is as on a good wire.

    Attributes:
        delay: added to each frame's way: "10ms".
        jitter: the delay varies by as much, each frame by itself; reorders.
        loss: share of frames that are lost: "1%".
        duplicate: share of frames that arrive twice.
        corrupt: share of frames in which one bit is flipped.
        reorder: share of frames that overtake the delayed ones; wants a delay.
        rate: bits of frames a second: "1mbit".
        mtu: bytes; longer packets (without the Ethernet header) are lost.
    """

    delay: Time | None = None
    jitter: Time | None = None
    loss: Percent | None = None
    duplicate: Percent | None = None
    corrupt: Percent | None = None
    reorder: Percent | None = None
    rate: Rate | None = None
    mtu: Annotated[int, Field(ge=68, le=65535)] | None = None

    @model_validator(mode="after")
    def _wants_delay(self) -> Self:
        for name in ("jitter", "reorder"):
            if getattr(self, name) is not None and self.delay is None:
                raise ValueError(f"{name} wants a delay")
        return self

    def netem(self) -> list[str]:
        """Options of `tc qdisc ... netem`; none for a wire with no such fault."""
        words = []
        if self.delay is not None:
            words += ["delay", self.delay] + ([self.jitter] if self.jitter else [])
        for name in ("loss", "duplicate", "corrupt", "reorder", "rate"):
            value = getattr(self, name)
            if value is not None:
                words += [name, value]
        return ["limit", str(QUEUE), *words] if words else []
