# SPDX-License-Identifier: GPL-2.0-only
"""What tests of a script and its eBPF twin share: programs, frames, wires."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lab.vm.machine import Machine

HERE = Path(__file__).parent

BPFFS = "/sys/fs/bpf"

#: One program for all of it: starting programs is what takes time here.
WIRE = """set -e
ip netns add client
ip -batch - <<END
link add c0 netns client address 02:00:00:00:00:01 type veth peer name r0 address 02:00:00:00:00:02
addr add 192.0.2.2/24 dev r0
link set r0 up
neigh add 192.0.2.1 lladdr 02:00:00:00:00:01 dev r0
END
# Hooks that eat ARP must not be what a ping fails of.
ip -n client -batch - <<END
addr add 192.0.2.1/24 dev c0
link set c0 up
neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev c0
END
"""

#: The link address that wires.py knows frames by, and that of r0.
MARK = b"\x02\x00\x00\x00\x00\x99"
ROUTER = b"\x02\x00\x00\x00\x00\x02"

MOUNT_BPFFS = f"mountpoint -q {BPFFS} || mount -t bpf bpf {BPFFS}"

#: What `ip link` and bpftool call a mode of ours.
XDP = {"native": "xdpdrv", "generic": "xdpgeneric"}


def load(machine: Machine, program: Path, name: str) -> str:
    """Pin a program and its maps below a directory of bpffs; gives the directory."""
    where = f"{BPFFS}/{name}"
    machine.copy_to(program, f"/tmp/{name}.o")
    machine.succeed(
        MOUNT_BPFFS,
        f"mkdir -p {where}",
        f"bpftool prog loadall /tmp/{name}.o {where}/progs pinmaps {where}",
    )
    return where


def attach(machine: Machine, where: str, program: str, *, mode: str, device: str = "r0") -> None:
    machine.succeed(f"bpftool net attach {XDP[mode]} pinned {where}/progs/{program} dev {device}")


def detach(machine: Machine, *, mode: str, device: str = "r0") -> None:
    machine.succeed(f"bpftool net detach {XDP[mode]} dev {device}")


def dump(machine: Machine, path: str) -> list[dict[str, Any]]:
    """A map's elements, sorted: key and value as lists of hex bytes."""
    elements = json.loads(machine.succeed(f"bpftool -j map dump pinned {path}"))
    bare = [{key: one[key] for key in ("key", "value")} for one in elements]
    return sorted(bare, key=lambda one: one["key"][::-1])


def run(machine: Machine, text: str, *, name: str = "filter", options: str = "softirq") -> None:
    """Run a script, of which anything else is known only when it fails."""
    machine.copy_to(text.encode(), f"/lib/modules/lua/{name}.lua")
    machine.succeed(f"lunatik run {name} {options}")


def packed(frames: Iterable[bytes]) -> bytes:
    """As wires.py reads them."""
    return b"".join(len(frame).to_bytes(2, "big") + frame for frame in frames)


def unpacked(data: bytes) -> list[bytes]:
    frames, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 2], "big")
        frames.append(data[at + 2 : at + 2 + length])
        at += 2 + length
    return frames


def send(machine: Machine, *, cpu: int = 0, timeout: float = 60) -> int:
    """Send what lies in /tmp/frames into r0's wire, on one CPU; how many it was."""
    machine.copy_to(HERE / "wires.py", "/tmp/wires.py")
    command = f"taskset -c {cpu} python3 /tmp/wires.py /tmp/frames client c0"
    words = machine.succeed(command, timeout=timeout)
    return int(words.split()[0])


def carry(
    machine: Machine, *, to: tuple[str, str] = ("server", "s0"), timeout: float = 60
) -> list[bytes]:
    """The same, and what came out at another device: that of the server, if not told."""
    machine.copy_to(HERE / "wires.py", "/tmp/wires.py")
    ends = f"client c0 {to[0]} {to[1]}"
    machine.succeed(f"python3 /tmp/wires.py /tmp/frames {ends} /tmp/captured", timeout=timeout)
    return unpacked(machine.copy_from("/tmp/captured"))
