# SPDX-License-Identifier: GPL-2.0-only
"""What a machine is, before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: A model that TCG emulates in full and that acpi-cpufreq accepts (it refuses
#: AMD family 15, which is what qemu64 and max claim to be).
DEFAULT_CPU = "Nehalem"

#: Network cards come in steps, so that few snapshots serve many topologies.
NIC_STEPS = (4, 8, 16)


@dataclass(frozen=True, kw_only=True)
class Hub:
    """A card that is plugged into nothing."""


@dataclass(frozen=True, kw_only=True)
class Dgram:
    """A point-to-point wire over a pair of unix datagram sockets.

    The other end has the two paths swapped.
    """

    local: Path
    remote: Path


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A point-to-point wire over a unix stream socket; one end is the server."""

    path: Path
    server: bool


@dataclass(frozen=True, kw_only=True)
class Vde:
    """A port of a VDE switch (a process of the host's, without rights)."""

    path: Path


Wire = Hub | Dgram | Stream | Vde


@dataclass(frozen=True, kw_only=True)
class Nic:
    """A network card of the guest; the first one is eth0.

    Args:
        mac: its address; one made from the machine's name and the card's
            number where None.
        wire: what it is plugged into.
        capture: every frame in and out of the card goes to this pcap file.
    """

    mac: str | None = None
    wire: Wire = Hub()
    capture: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DebugPort:
    """An I/O port whose bytes are appended to `<machine directory>/<name>.bin`."""

    name: str
    port: int


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """Everything that decides what a guest is.

    Args:
        name: the guest's hostname.
        kernel: bzImage.
        root: erofs image with the init (see docs/architecture.md, "The guest").
        payload: erofs laid over the root, or None.
        memory: MiB.
        cpus: virtual processors.
        cpu: QEMU's CPU model; always a named one.
        accel: "tcg" or "kvm".
        nics: cards in order; the guest has at least four, the rest unplugged.
        cmdline: words added to the kernel's command line.
        patience: every time limit is multiplied by it.
        icount: the guest's clock counts instructions (TCG, one CPU).
        single_thread: the CPUs take turns in one thread of the host (TCG), so
            that none runs what another has just patched in the kernel's text.
        acpi_tables: compiled tables given to the firmware.
        debug_ports: see DebugPort.
        ssh_port: TCP port of the host's loopback that leads to the guest's
            port 22 through a card of its own; 0 for any free one, None for
            no such card.
        gdb: unix socket for gdb; the machine then starts stopped.
        prepare: commands that run once the guest answers, before anybody
            gets it; a clone has them behind it.
    """

    name: str
    kernel: Path
    root: Path
    payload: Path | None = None
    memory: int = 512
    cpus: int = 1
    cpu: str = DEFAULT_CPU
    accel: str = "tcg"
    nics: tuple[Nic, ...] = ()
    cmdline: tuple[str, ...] = ()
    patience: float = 1.0
    icount: bool = False
    single_thread: bool = False
    acpi_tables: tuple[Path, ...] = ()
    debug_ports: tuple[DebugPort, ...] = ()
    ssh_port: int | None = None
    gdb: Path | None = None
    prepare: tuple[str, ...] = ()

    @property
    def cores(self) -> int:
        """How many of the host's it keeps busy at most."""
        return 1 if self.single_thread and self.accel == "tcg" else self.cpus

    def slots(self) -> tuple[Nic, ...]:
        """The cards of the machine's shape: those asked for, padded with unplugged ones.

        Raises:
            ValueError: more cards than any shape has.
        """
        for step in NIC_STEPS:
            if len(self.nics) <= step:
                return self.nics + (Nic(),) * (step - len(self.nics))
        raise ValueError(f"{self.name}: {len(self.nics)} cards, at most {NIC_STEPS[-1]}")
