# SPDX-License-Identifier: GPL-2.0-only
"""The words of a test, on a guest that a test plays."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

from lab.vm.errors import CommandFailed, OutputCut
from lab.vm.machine import Body, Channel, Completed, Machine
from lab.vm.spec import MachineSpec


class Player(Channel):
    """Ends each command as it is told."""

    overdue = None

    def __init__(self, done: Completed) -> None:
        self.done = done

    def run(self, command: str, *, timeout: float, stdin: bytes | None) -> Completed:
        assert command
        assert (timeout, stdin) == (30, None)
        return self.done


def machine(done: Completed) -> Machine:
    spec = MachineSpec(name="a", kernel=Path("bzImage"), root=Path("root"))
    return Machine(spec=spec, directory=Path(), channel=Player(done), body=cast("Body", None))


def test_half_of_an_output_is_none() -> None:
    cut = machine(Completed(0, "half", "", cut=True))
    with pytest.raises(OutputCut, match="a: `cat big` wrote more than is kept of it: 16 MiB"):
        cut.succeed("cat big")
    assert cut.execute("cat big").stdout == "half"
    assert machine(Completed(0, "all", "")).succeed("cat small") == "all"


def test_a_status_says_more_than_that() -> None:
    with pytest.raises(CommandFailed, match="ended with status 1"):
        machine(Completed(1, "half", "", cut=True)).succeed("cat big")
