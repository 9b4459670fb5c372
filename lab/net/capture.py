# SPDX-License-Identifier: GPL-2.0-only
"""What passes a card, written to a pcap file by QEMU: the guest cannot tell."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lab.vm.errors import ConsoleFlooded, MachineDied
from lab.vm.machine import Machine

if TYPE_CHECKING:
    from scapy.plist import PacketList

_number = itertools.count()

#: Bytes kept of each frame: all of it.
_SNAP = 65536


class Capture:
    """A running capture of one card, in both directions; `with` ends it.

    Args:
        machine: whose card it is.
        card: its number.
        file: the pcap file; made anew.
    """

    def __init__(self, *, machine: Machine, card: int, file: Path) -> None:
        self.file = file
        self._machine = machine
        self._id = f"capture{next(_number)}"
        machine.body.monitor("object-add", **{
            "qom-type": "filter-dump", "id": self._id, "netdev": f"net{card}",
            "file": str(file), "maxlen": _SNAP})  # fmt: skip
        self._running = True

    def stop(self) -> None:
        """End it; the file is complete then. Stopping twice is fine."""
        if not self._running:
            return
        self._running = False
        # What a machine had on its wires before its end is just what is wanted then.
        with contextlib.suppress(MachineDied, ConsoleFlooded):
            if self._machine.body.alive():
                self._machine.body.monitor("object-del", id=self._id)

    def packets(self) -> PacketList:
        """Everything captured, read by scapy; ends the capture."""
        # Here, as scapy takes a second to import; the layers register themselves.
        import scapy.layers.inet6
        import scapy.layers.l2  # noqa: F401
        from scapy.utils import rdpcap

        self.stop()
        return rdpcap(str(self.file))

    def __enter__(self) -> Capture:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
