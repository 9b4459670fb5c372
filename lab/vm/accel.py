# SPDX-License-Identifier: GPL-2.0-only
"""KVM or TCG: found out by running a guest, not by looking at /dev/kvm.

The device may exist, open, create a machine, run real mode in its emulator,
and yet never run a guest in long mode.  So a tiny payload (kvm_probe.S) has to
get there within a time limit.  The answer is remembered in the store for this
QEMU on this host kernel and processor; for a day, if it is bad.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError, UserError
from lab.process import ProgramTimeout, run
from lab.seal import digest
from lab.store import Json, Store, canonical
from lab.vm.runtime import runtime
from lab.vm.spec import DEFAULT_CPU

QEMU = "qemu-system-x86_64"
TIME_LIMIT = 5.0
"""Seconds; a working KVM needs 0.2, TCG 0.4."""

TROUBLE_LASTS = 86400.0
"""Seconds that a bad answer is believed; a good one is for ever."""

DONE = 0x10 << 1 | 1
"""isa-debug-exit turns the byte 0x10 into this exit status."""

ROM_SIZE = 1 << 16
PAYLOAD_AT = 0xF000
RESET_VECTOR = 0xFFF0
PAYLOAD = bytes.fromhex(
    "fa2e660f0116a8f00f20c00c010f22c066ea18f00f000800b8100000008ed8c7"
    "050010000003200000c7050020000003300000c7050030000083000000b80010"
    "00000f22d80f20e00c200f22e0b9800000c00f3280cc010f300f20c00d000000"
    "800f22c0ea6bf00f001800b9002d3101ff042500400000ffc975f5b010e6f4f4"
    "ebfd660f1f4400000000000000000000ffff0000009acf00ffff00000092cf00"
    "ffff0000009aaf001f0088f00f00"
)
"""kvm_probe.S, assembled."""


@dataclass(frozen=True)
class Accel:
    """What machines run on.

    Attributes:
        name: "kvm" or "tcg", as QEMU's -accel has it.
        why: the reason, for people.
    """

    name: str
    why: str


def choose(asked: str, store: Store) -> Accel:
    """The accelerator for a run.

    Args:
        asked: "auto" (KVM if it works, else TCG), "tcg" or "kvm".
        store: remembers the probe's answer.

    Raises:
        UserError: asked for anything else.
        HostError: KVM was asked for and does not work.
    """
    if asked not in ("auto", "tcg", "kvm"):
        raise UserError(f"there is no accelerator `{asked}`", right="auto, tcg or kvm")
    if asked == "tcg":
        return Accel("tcg", "asked for")
    trouble = trouble_with_kvm(store)
    if trouble is None:
        return Accel("kvm", "a guest ran in it")
    if asked == "kvm":
        raise HostError(f"KVM does not work here: {trouble}", right="use --accel tcg")
    return Accel("tcg", f"no KVM: {trouble}")


def trouble_with_kvm(store: Store) -> str | None:
    """Why KVM cannot be used; None if it can."""
    device = Path("/dev/kvm")
    if not device.exists():
        return "there is no /dev/kvm"
    if not os.access(device, os.R_OK | os.W_OK):
        return "/dev/kvm may not be opened (are you in the group kvm?)"
    qemu = shutil.which(QEMU)
    if qemu is None:
        return f"{QEMU} is not installed"
    fact = f"kvm-{_host(Path(qemu))}"
    known = store.recall(fact)
    if isinstance(known, dict) and not _is_stale(known):
        trouble = known["trouble"]
        return None if trouble is None else str(trouble)
    trouble = _run_payload("kvm")
    store.remember(fact, {"trouble": trouble, "when": time.time()})
    return trouble


def _is_stale(known: Mapping[str, Json]) -> bool:
    """Whether to probe again: a host that was busy, or its modules reloaded, may do by now."""
    when = known.get("when")
    if "trouble" not in known or not isinstance(when, int | float):
        return True
    return known["trouble"] is not None and not 0 <= time.time() - when < TROUBLE_LASTS


def _host(qemu: Path) -> str:
    """Whatever may change the answer, as a short hash."""
    binary = qemu.stat()
    with Path("/proc/cpuinfo").open() as cpus:
        model = next((line for line in cpus if line.startswith("model name")), "")
    parts = (str(qemu), binary.st_size, binary.st_mtime_ns, platform.release(), model)
    return digest(canonical((*parts, PAYLOAD.hex())))[:20]


def _rom() -> bytes:
    rom = bytearray(b"\xf4" * ROM_SIZE)  # hlt
    rom[PAYLOAD_AT : PAYLOAD_AT + len(PAYLOAD)] = PAYLOAD
    distance = (PAYLOAD_AT - (RESET_VECTOR + 3)) & 0xFFFF
    rom[RESET_VECTOR : RESET_VECTOR + 3] = b"\xe9" + distance.to_bytes(2, "little")  # jmp
    return bytes(rom)


def _run_payload(accel: str) -> str | None:
    # There the reaper finds QEMU, by the path on its command line.
    rom = runtime().directory() / "rom"
    rom.write_bytes(_rom())
    try:
        finished = run(_argv(accel, rom), timeout=TIME_LIMIT, check=False)
    except ProgramTimeout:
        return f"a tiny guest did not get to its end within {TIME_LIMIT:g} s"
    finally:
        shutil.rmtree(rom.parent, ignore_errors=True)
    if finished.status == DONE:
        return None
    last = finished.tail(1) or "it said nothing"
    return f"a tiny guest ended with status {finished.status} ({last})"


def _argv(accel: str, rom: Path) -> list[str]:
    # Not a machine of the lab's, hence not from argv.py: no kernel, no channel.
    return [
        QEMU,
        *("-accel", accel, "-machine", "pc", "-cpu", DEFAULT_CPU, "-m", "16"),
        *("-nodefaults", "-no-user-config", "-display", "none", "-vga", "none"),
        *("-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-bios", str(rom)),
    ]
