# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's command line.  No other file knows its options."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError
from lab.vm.spec import Dgram, MachineSpec, Nic, Stream, Vde, Wire

PROGRAM = "qemu-system-x86_64"

#: Where the image keeps the lab's own program (vm-images/guest).
INIT = "/usr/lib/lab/init"

#: The address of the card that leads to the guest's sshd.
SSH_MAC = "52:54:00:fe:00:01"

AGENT_PORT = "org.qemu.guest_agent.0"
EXECUTOR_PORT = "lab.executor"


@dataclass(frozen=True, kw_only=True)
class Memory:
    """The file that is a snapshot's memory.

    Args:
        file: as large as the guest's memory.
        frozen: the file is final: map it privately and wait for the device
            state to come over QMP; otherwise the guest writes to the file.
    """

    file: Path
    frozen: bool


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where a machine's files are.

    Args:
        directory: kept after its end: console.log, captures, debug ports.
        runtime: private, with a short path: sockets.
    """

    directory: Path
    runtime: Path

    @property
    def console(self) -> Path:
        """The kernel's console, as it comes."""
        return self.directory / "console.log"

    @property
    def monitor(self) -> Path:
        """QMP."""
        return self.runtime / "qmp"

    @property
    def agent(self) -> Path:
        """The guest agent."""
        return self.runtime / "agent"

    @property
    def executor(self) -> Path:
        """What runs commands, and wakes clones; see executor.py."""
        return self.runtime / "executor"

    @property
    def terminal(self) -> Path:
        """hvc0, for `lab shell`."""
        return self.runtime / "terminal"


def program() -> str:
    """The path of QEMU.

    Raises:
        HostError: it is not installed.
    """
    found = shutil.which(PROGRAM)
    if found is None:
        raise HostError(
            f"{PROGRAM} is not installed",
            right="install the package qemu-system-x86 (lab doctor --install)",
        )
    return found


def compose(spec: MachineSpec, *, places: Places, memory: Memory | None = None) -> list[str]:
    """The whole command line of one machine.

    Args:
        spec: what it is.
        places: where its files are.
        memory: the snapshot's memory, when making or using one.
    """
    return [
        program(),
        *_board(spec, memory),
        *_boot(spec, memory),
        *_disks(spec),
        *_serial(places),
        *_monitor(spec, places),
        *_devices(spec, places),
        *_cards(spec),
    ]


def command_line(spec: MachineSpec) -> str:
    """The kernel's command line."""
    words = [
        "console=ttyS0",
        # All that the kernel says is judged, whatever a test does to the loglevel.
        "ignore_loglevel",
        "printk.time=1",
        "root=/dev/vda",
        "rootfstype=erofs",
        "ro",
        f"init={INIT}",
        "panic=0",
        f"lab.name={spec.name}",
        # A test that wants one makes one.
        "dummy.numdummies=0",
        "ifb.numifbs=0",
    ]
    if spec.icount:
        words.append("nokaslr")
    return " ".join([*words, *spec.cmdline])


def cpu_model(spec: MachineSpec) -> str:
    """What QEMU is told of the processor.

    Under TCG it has no CMPXCHG16B, which SLUB would use for each allocation:
    QEMU before 8.0 leaves the flags behind it made of whatever was computed
    last, and an interrupt at that very moment saves them for the guest. Once in
    some thousand tests they had VM in them: a double fault behind
    kmem_cache_alloc(), with EFLAGS the lower bits of RAX. Where instructions
    are counted it stays, as counts are of a processor that has it.
    """
    if spec.accel == "tcg" and not spec.icount:
        return f"{spec.cpu},-cx16"
    return spec.cpu


def _board(spec: MachineSpec, memory: Memory | None) -> Iterator[str]:
    machine = "q35,usb=off,vmport=off,dump-guest-core=on"
    if memory is not None:
        share = "off" if memory.frozen else "on"
        yield from (
            "-object",
            f"memory-backend-file,id=ram,size={spec.memory}M,"
            f"mem-path={_safe(memory.file)},share={share}",
        )
        machine += ",memory-backend=ram"
        if memory.frozen:
            yield from ("-incoming", "defer")
    yield from ("-name", f"guest={_safe(spec.name)},debug-threads=on")
    # Without defaults, so that a version's new default device changes nothing.
    yield from ("-nodefaults", "-no-user-config", "-display", "none")
    yield from (
        "-machine",
        machine,
        "-cpu",
        cpu_model(spec),
        "-m",
        f"{spec.memory}M",
        "-smp",
        str(spec.cpus),
    )
    # Never left to QEMU: /dev/kvm may open and yet not work.
    if spec.icount:
        yield from (
            "-accel",
            f"{spec.accel},thread=single",
            "-icount",
            "shift=0,sleep=off",
            "-rtc",
            "base=2026-01-01,clock=vm",
            "-seed",
            "0",
        )
    elif spec.single_thread and spec.accel == "tcg":
        yield from ("-accel", "tcg,thread=single")
    else:
        yield from ("-accel", spec.accel)
    # A reset ends QEMU, a panic goes on to print its trace; both are reported.
    yield from ("-no-reboot", "-action", "panic=none")


def _boot(spec: MachineSpec, memory: Memory | None) -> Iterator[str]:
    # A clone has it in its memory. Reading it once more would take a fifth of
    # QEMU's start, and 10 MB for good. What fw_cfg then lacks is the ROM that
    # boots it, the last of the files, so that the others have the same keys.
    if memory is None or not memory.frozen:
        yield from ("-kernel", str(spec.kernel), "-append", command_line(spec))
    for table in spec.acpi_tables:
        yield from ("-acpitable", f"file={_safe(table)}")


def _disks(spec: MachineSpec) -> Iterator[str]:
    for name, file in (("root", spec.root), ("payload", spec.payload)):
        if file is None:
            continue
        node = {
            "driver": "raw",
            "node-name": name,
            "read-only": True,
            "file": {"driver": "file", "filename": str(file), "locking": "off"},
        }
        yield from (
            "-blockdev",
            json.dumps(node),
            "-device",
            f"virtio-blk-pci,drive={name},num-queues=1",
        )


def _serial(places: Places) -> Iterator[str]:
    yield from (
        "-chardev",
        f"file,id=console,path={_safe(places.console)}",
        "-serial",
        "chardev:console",
    )
    yield from ("-device", "virtio-serial-pci,max_ports=8")
    yield from (
        "-chardev",
        _server("agent", places.agent),
        "-device",
        f"virtserialport,nr=1,chardev=agent,name={AGENT_PORT}",
    )
    yield from (
        "-chardev",
        _server("executor", places.executor),
        "-device",
        f"virtserialport,nr=2,chardev=executor,name={EXECUTOR_PORT}",
    )
    yield from (
        "-chardev",
        _server("terminal", places.terminal),
        "-device",
        "virtconsole,nr=3,chardev=terminal",
    )


def _monitor(spec: MachineSpec, places: Places) -> Iterator[str]:
    yield from ("-chardev", _server("qmp", places.monitor), "-mon", "chardev=qmp,mode=control")
    if spec.gdb is not None:
        yield from ("-chardev", _server("gdb", spec.gdb), "-gdb", "chardev:gdb", "-S")


def _devices(spec: MachineSpec, places: Places) -> Iterator[str]:
    if not spec.icount:
        yield from (
            "-object",
            "rng-random,id=rng,filename=/dev/urandom",
            "-device",
            "virtio-rng-pci,rng=rng",
        )
    # A panic becomes a QMP event; dump-guest-memory gets what drgn needs.
    yield from ("-device", "pvpanic-pci", "-device", "vmcoreinfo")
    for port in spec.debug_ports:
        path = places.directory / f"{port.name}.bin"
        yield from (
            "-chardev",
            f"file,id={port.name},path={_safe(path)}",
            "-device",
            f"isa-debugcon,iobase={port.port:#x},chardev={port.name}",
        )


def _cards(spec: MachineSpec) -> Iterator[str]:
    for number, nic in enumerate(spec.slots()):
        yield from ("-netdev", _netdev(f"net{number}", number, nic.wire))
        # Without the boot ROM: nobody boots from the network.
        yield from (
            "-device",
            f"virtio-net-pci,id=nic{number},netdev=net{number},"
            f"mac={mac(spec, number, nic)},romfile=",
        )
        if nic.capture is not None:
            yield from (
                "-object",
                f"filter-dump,id=dump{number},netdev=net{number},"
                f"file={_safe(nic.capture)},maxlen=65536",
            )
    if spec.ssh_port is not None:
        yield from ("-netdev", f"user,id=ssh,restrict=on,hostfwd=tcp:127.0.0.1:{spec.ssh_port}-:22")
        yield from ("-device", f"virtio-net-pci,id=sshnic,netdev=ssh,mac={SSH_MAC},romfile=")


def mac(spec: MachineSpec, number: int, nic: Nic) -> str:
    """A card's address: as asked for, else made from the machine's name.

    Locally administered, and the same in every run.
    """
    if nic.mac is not None:
        return nic.mac
    # FNV-1a: stable over processes, unlike hash().
    value = 0x811C9DC5
    for byte in spec.name.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    high, middle, low = (value >> 16) & 0xFF, (value >> 8) & 0xFF, value & 0xFF
    return f"52:54:{high:02x}:{middle:02x}:{low:02x}:{number:02x}"


def _netdev(name: str, number: int, wire: Wire) -> str:
    match wire:
        case Dgram(local=local, remote=remote):
            return (
                f"dgram,id={name},local.type=unix,local.path={_safe(local)},"
                f"remote.type=unix,remote.path={_safe(remote)}"
            )
        case Stream(path=path, server=server):
            return (
                f"stream,id={name},server={'on' if server else 'off'},"
                f"addr.type=unix,addr.path={_safe(path)}"
            )
        case Vde(path=path):
            return f"vde,id={name},sock={_safe(path)}"
        case _:
            return f"hubport,id={name},hubid={number}"


def _server(name: str, path: Path) -> str:
    return f"socket,id={name},path={_safe(path)},server=on,wait=off"


def _safe(value: Path | str) -> str:
    """A value inside a comma-separated option."""
    return str(value).replace(",", ",,")
