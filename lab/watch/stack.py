# SPDX-License-Identifier: GPL-2.0-only
"""Stacks as the kernel prints them: which frames matter, and their fingerprint."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# " function+0x12/0x40 [module]"; with STACKTRACE_BUILD_ID the module is
# followed by its build id.  "? " marks a frame that the unwinder found lying
# on the stack only.
_FRAME = re.compile(
    r"^\s*(?P<guess>\? )?(?P<symbol>[\w.$]+)\+0x(?P<offset>[0-9a-f]+)/0x(?P<size>[0-9a-f]+)"
    r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]{40})?\])?\s*(?:\(.*\))?$"
)
# 0010 is the kernel's code segment; user space has 0033.
_RIP = re.compile(r"^RIP: 0010:(?P<frame>\S+\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[[\w-]+[^\]]*\])?)")
# GCC's and LLVM's clones of a function come and go with their versions.
_CLONE = re.compile(r"\.(isra|constprop|part|cold|llvm)\b[.\d]*")
_NUMBER = re.compile(r"0x[0-9a-f]+|\b[0-9a-f]{8,}\b|\d+")
_FINGERPRINT_FRAMES = 4


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One place in the kernel's code."""

    symbol: str
    offset: int
    size: int
    module: str | None
    guess: bool

    @property
    def function(self) -> str:
        """The symbol without what a compiler adds to it."""
        return _CLONE.sub("", self.symbol)

    def __str__(self) -> str:
        module = f" [{self.module}]" if self.module else ""
        return f"{self.symbol}+{self.offset:#x}/{self.size:#x}{module}"


def frame(line: str) -> Frame | None:
    """The frame in a line, None where there is none."""
    found = _FRAME.match(line)
    if found is None:
        return None
    return Frame(
        symbol=found["symbol"],
        offset=int(found["offset"], 16),
        size=int(found["size"], 16),
        module=found["module"],
        guess=found["guess"] is not None,
    )


def starts_stack(line: str) -> bool:
    """True for the line that announces a stack."""
    return line.startswith("Call Trace:")


def stack(lines: Iterable[str], *, skip: frozenset[str]) -> tuple[str, ...]:
    """The frames that matter in a report, innermost first.

    The place of a fault (RIP) comes first, and a function that an interrupt
    stopped stands where it was called from.  Only the report's first stack is
    taken: KASAN adds those of the allocation and of the free, lockdep those
    of each lock.
    """
    top: Frame | None = None
    frames: list[Frame] = []
    taking = done = False
    for line in lines:
        rip = _RIP.match(line)
        if rip is not None and top is None and not frames and not taking:
            top = frame(rip["frame"])
        elif starts_stack(line):
            taking = not done
        elif taking:
            # Within a stack, registers are those of the function that an interrupt stopped.
            found = frame(line if rip is None else rip["frame"])
            if found is not None:
                frames.append(found)
            elif frames and _ends_stack(line):
                taking, done = False, True
    solid = [f for f in frames if not f.guess and f.function not in skip]
    if top is not None and top.function not in skip:
        solid = [top, *(f for f in solid if f != top)]
    return tuple(str(f) for f in solid)


def stopped_at(lines: Iterable[str]) -> frozenset[str]:
    """The frames of a report at which a processor stood; all others are returned to."""
    found = (frame(rip["frame"]) for line in lines if (rip := _RIP.match(line)))
    return frozenset(str(place) for place in found if place is not None)


def _ends_stack(line: str) -> bool:
    """Markers such as <IRQ> and registers at a border stand inside a stack."""
    marker = re.match(r"^\s*</?(TASK|IRQ|NMI|#DF|ENTRY_TRAMPOLINE|SOFTIRQ)>", line)
    registers = re.match(r"^(RIP|RSP|RAX|RDX|RBP|R10|R13|Code|ORIG_RAX|EFLAGS)\b", line.strip())
    if line.strip() == "</TASK>":
        return True
    return marker is None and registers is None


def fingerprint(kind: str, title: str, frames: Sequence[str]) -> str:
    """12 hex digits; equal for the same kind of report at the same place."""
    place = [re.sub(r"\+0x[0-9a-f]+/0x[0-9a-f]+", "", f) for f in frames[:_FINGERPRINT_FRAMES]]
    place = [_CLONE.sub("", p) for p in place]
    what = place or [_NUMBER.sub("N", title)]
    return hashlib.sha256("\n".join([kind, *what]).encode()).hexdigest()[:12]
