# SPDX-License-Identifier: GPL-2.0-only
"""Captures outlive their machines: what a dead one sent is what a test wants to see."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lab.net.capture import Capture
from lab.vm.errors import ConsoleFlooded, MachineDied
from lab.vm.machine import Machine

DEAD = MachineDied("a: QEMU was ended by signal 9", reason="qemu")


class Body:
    """A QEMU that has captured one frame, and can end."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.there = True
        self.end: Exception | None = None

    def alive(self) -> bool:
        return self.there

    def monitor(self, command: str, **arguments: object) -> Any:
        from scapy.layers.l2 import Ether
        from scapy.utils import wrpcap

        self.asked.append(command)
        if command == "object-add":
            wrpcap(str(arguments["file"]), [Ether(dst="ff:ff:ff:ff:ff:ff") / b"last words"])
        elif self.end is not None:
            raise self.end


def capture(body: Body, directory: Path) -> Capture:
    machine = cast(Machine, SimpleNamespace(body=body))
    return Capture(machine=machine, card=0, file=directory / "a.pcap")


def test_is_ended_once(tmp_path: Path) -> None:
    body = Body()
    with capture(body, tmp_path) as running:
        assert len(running.packets()) == 1
    assert body.asked == ["object-add", "object-del"]


def test_of_a_machine_that_ended_can_be_read(tmp_path: Path) -> None:
    body = Body()
    body.end = DEAD
    with capture(body, tmp_path) as running:
        body.there = False
    assert bytes(running.packets()[0]).endswith(b"last words")


@pytest.mark.parametrize("end", [DEAD, ConsoleFlooded("a: was ended")])
def test_of_a_machine_that_ends_just_then_can_be_read(tmp_path: Path, end: Exception) -> None:
    body = Body()
    body.end = end
    with capture(body, tmp_path) as running:
        pass
    assert len(running.packets()) == 1
