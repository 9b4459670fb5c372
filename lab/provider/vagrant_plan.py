# SPDX-License-Identifier: GPL-2.0-only
"""What the Vagrantfile makes machines from: one JSON file, written by the lab.

The Vagrantfile reads nothing else, so that there is one reader of our YAML.
A plan stands in a state directory together with copies of what the machines
boot: libvirt writes file names into its domains, and they shall stay true.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import HostError, UserError
from lab.image.box import Box
from lab.net.network import configuration
from lab.net.topology import Topology
from lab.process import run
from lab.store import remove_tree
from lab.vm.spec import MachineSpec

#: Where ports begin, how many each plan has to itself, and how many plans fit
#: below the ports that Linux gives away by itself (32768).
FIRST_PORT, BLOCK, BLOCKS = 20480, 128, 96

#: Slots of the PCI bus that libvirt, which fills it from below, does not reach.
PAYLOAD_SLOT, SSH_SLOT, CARD_SLOT = 0x1C, 0x1D, 0x0C

#: The lab's own control card: libvirt wants one that has an address.
CONTROL_CARD, CONTROL_ADDRESS = "control", "192.0.2.1/32"
#: The card that leads to the host is out of the way of the network under test.
SSH_CARD, SSH_ADDRESS, SSH_SPACE = "ssh", "10.0.2.15/24", "lab"

PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class Tunnel:
    """A card of libvirt's: one end of a UDP tunnel over the host's loopback."""

    mac: str
    local: int
    remote: int


@dataclass(frozen=True, kw_only=True)
class Node:
    """One machine.

    Attributes:
        name: Vagrant's: node1, node2, ... in the topology's order.
        guest: the topology's name of it, and its host name.
        memory: MiB.
        cpus: virtual processors.
        cmdline: the kernel's.
        ssh_port: of the host's loopback, leads to the guest's sshd.
        console: file that the kernel's console goes to.
        cards: the control card, then the links' in order.
        arguments: QEMU's, for what libvirt has no words for.
    """

    name: str
    guest: str
    memory: int
    cpus: int
    cmdline: str
    ssh_port: int
    console: str
    cards: tuple[Tunnel, ...]
    arguments: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that the Vagrantfile needs.

    Attributes:
        box, version: Vagrant's.
        prefix: of the domains' names; no other plan has it.
        kernel: bzImage, a copy.
        driver: "qemu" (no hardware virtualisation) or "kvm".
        cpu: QEMU's model.
        sync: directory that is given to each machine as /vagrant; "" for none.
        boot_timeout: seconds.
        ports: the first one of its block.
        nodes: in order.
    """

    box: str
    version: str
    prefix: str
    kernel: str
    driver: str
    cpu: str
    sync: str
    boot_timeout: int
    ports: int
    nodes: tuple[Node, ...]

    def save(self, directory: Path) -> Path:
        """Write it; whoever reads at the same time sees the old one or the new one."""
        file = directory / PLAN
        new = file.with_suffix(".new")
        new.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")
        new.chmod(0o644)
        new.replace(file)
        return file

    def node(self, name: str) -> Node:
        """A node by name."""
        return next(node for node in self.nodes if node.name == name)


def load(directory: Path) -> Plan | None:
    """The plan of a state directory; None if there is none that can be read."""
    try:
        row = json.loads((directory / PLAN).read_text(encoding="utf-8"))
        nodes = tuple(
            Node(
                **{
                    **node,
                    "cards": tuple(Tunnel(**card) for card in node["cards"]),
                    "arguments": tuple(node["arguments"]),
                }
            )
            for node in row["nodes"]
        )
        return Plan(**{**row, "nodes": nodes})
    except (OSError, ValueError, TypeError, KeyError):
        return None


class Planner:
    """Makes plans in one state directory.

    Args:
        directory: made if need be.
        box: what the machines' disks are copies of.
        spec: the usual machine.
    """

    def __init__(self, directory: Path, *, box: Box, spec: MachineSpec) -> None:
        self.directory = directory
        self.box = box
        self.spec = spec
        mark = hashlib.sha256(str(directory).encode()).hexdigest()
        self.seed = int(mark[:8], 16)
        self.prefix = f"lunatik-{mark[:8]}-"
        self._next = 0

    def topology(self, topology: Topology, *, sources: Path) -> Plan:
        """A machine for each node, a UDP tunnel for each wire.

        Args:
            topology: the nodes and links.
            sources: directory that each machine gets a copy of.

        Raises:
            UserError: a link is no plain wire.
            HostError: no ports are free.
        """
        self._refuse_more_than_wires(topology)
        first = self._begin()
        controls = {name: self._pair() for name in topology.nodes}
        wires = {name: self._pair() for name in topology.links}
        nodes: list[Node] = []
        for name, entry in topology.nodes.items():
            cards = [self._tunnel(name, 0, *controls[name])]
            for number, link in enumerate(topology.cards(name), 1):
                left, right = wires[link]
                here = (left, right) if name == next(iter(topology.links[link].ends)) else None
                cards.append(self._tunnel(name, number, *(here or (right, left))))
            script = configuration(topology, name) + "\nmodprobe lunatik\n"
            nodes.append(
                self._node(
                    f"node{len(nodes) + 1}",
                    guest=name,
                    cards=cards,
                    memory=entry.memory or self.spec.memory,
                    cpus=entry.cpus,
                    script=script,
                    names=[f"eth{number}" for number in range(len(cards) - 1)],
                )
            )
        return self._finish(first, nodes, sync=self._sync(sources))

    def pool(self, names: Sequence[str], *, ports: int, sockets: Path) -> Plan:
        """Machines whose cards are plugged into nothing yet.

        Args:
            names: of the machines.
            ports: where its block of ports begins.
            sockets: directory for QEMU's monitors.
        """
        self._next = ports
        cards = len(self.spec.slots())
        nodes: list[Node] = []
        for name in names:
            arguments = [
                *("-chardev", f"socket,id=lab,path={sockets}/{name},server=on,wait=off"),
                *("-mon", "chardev=lab,mode=control"),
            ]
            for card in range(cards):
                arguments += [
                    *("-netdev", f"hubport,id=net{card},hubid={card + 1}"),
                    "-device",
                    f"virtio-net-pci,netdev=net{card},mac={self._mac(name, card + 1)},"
                    f"addr={CARD_SLOT + card:#x}",
                ]
            nodes.append(
                self._node(
                    name,
                    guest=name,
                    cards=[self._tunnel(name, 0, *self._pair())],
                    memory=self.spec.memory,
                    cpus=self.spec.cpus,
                    script="\n".join(["set -e", *self.spec.prepare, ""]),
                    names=[f"eth{card}" for card in range(cards)],
                    arguments=arguments,
                )
            )
        return self._finish(ports, nodes)

    def _refuse_more_than_wires(self, topology: Topology) -> None:
        for name, link in topology.links.items():
            if len(link.ends) != 2 or link.bridged:
                what = "impaired" if link.bridged else f"a LAN of {len(link.ends)}"
                raise topology.where("links", name).error(
                    f"the link `{name}` is {what}, and Vagrant's tunnels are plain wires",
                    "run it with the provider qemu, or use another topology",
                )

    def _begin(self) -> int:
        """The ports of the plan that was here before, else a free block."""
        self.directory.mkdir(parents=True, exist_ok=True)
        old = load(self.directory)
        self._next = old.ports if old is not None else free_block(self.seed)
        return self._next

    def _node(
        self,
        name: str,
        *,
        guest: str,
        cards: list[Tunnel],
        memory: int,
        cpus: int,
        script: str,
        names: list[str],
        arguments: Sequence[str] = (),
    ) -> Node:
        (self.directory / f"{name}.sh").write_text(script)
        port = self._port()
        ssh_mac = self._mac(name, 0xFF)
        shown = [f"{cards[0].mac},{CONTROL_CARD},{CONTROL_ADDRESS}"]
        macs = [card.mac for card in cards[1:]] or [
            self._mac(name, number + 1) for number in range(len(names))
        ]
        shown += [f"{mac},{card}" for mac, card in zip(macs, names, strict=True)]
        shown.append(f"{ssh_mac},{SSH_CARD},{SSH_ADDRESS},{SSH_SPACE}")
        return Node(
            name=name,
            guest=guest,
            memory=memory,
            cpus=cpus,
            cmdline=self._cmdline(guest, shown),
            ssh_port=port,
            console=str(self.directory / f"{name}.console.log"),
            cards=tuple(cards),
            arguments=(*self._disk(), *self._ssh(port, ssh_mac), *self._script(name), *arguments),
        )

    def _cmdline(self, name: str, cards: list[str]) -> str:
        words = [
            "console=ttyS0",
            "root=/dev/vda",
            "rootfstype=ext4",
            "rw",
            "init=/usr/lib/lab/boot",
            "panic=0",
            "net.ifnames=0",
            f"systemd.hostname={name}",
            "systemd.show_status=0",
            "dummy.numdummies=0",
            "ifb.numifbs=0",
        ]
        if self.spec.payload is not None:
            words.append("lab.payload=/dev/vdb")
        words += [f"lab.card={card}" for card in cards]
        return " ".join([*words, *self.spec.cmdline])

    def _disk(self) -> tuple[str, ...]:
        if self.spec.payload is None:
            return ()
        file = self.directory / "payload.erofs"
        return (
            *("-drive", f"if=none,id=payload,format=raw,readonly=on,file={file}"),
            *("-device", f"virtio-blk-pci,drive=payload,addr={PAYLOAD_SLOT:#x}"),
        )

    @staticmethod
    def _ssh(port: int, mac: str) -> tuple[str, ...]:
        # restrict: the guest reaches nothing, and only we reach the guest.
        user = f"user,id=ssh,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"
        card = f"virtio-net-pci,netdev=ssh,mac={mac},addr={SSH_SLOT:#x}"
        return ("-netdev", user, "-device", card)

    def _script(self, name: str) -> tuple[str, ...]:
        return ("-fw_cfg", f"name=opt/lab/node,file={self.directory / name}.sh")

    def _sync(self, sources: Path) -> Path:
        """What `vagrant rsync` takes to the machines: sources, and modules made of them."""
        sync = self.directory / "sync"
        sync.mkdir(exist_ok=True)
        link = sync / sources.name
        link.unlink(missing_ok=True)
        link.symlink_to(sources)
        if self.spec.payload is not None:
            tree = sync / "payload"
            remove_tree(tree)
            run(["fsck.erofs", f"--extract={tree}", self.spec.payload], timeout=120)
        return sync

    def _finish(self, ports: int, nodes: list[Node], *, sync: Path | None = None) -> Plan:
        self.directory.mkdir(parents=True, exist_ok=True)
        kernel = self._place(self.spec.kernel, "bzImage")
        if self.spec.payload is not None:
            self._place(self.spec.payload, "payload.erofs")
        return Plan(
            box=self.box.name,
            version=self.box.version,
            prefix=self.prefix,
            kernel=str(kernel),
            driver="kvm" if self.spec.accel == "kvm" else "qemu",
            cpu=self.spec.cpu,
            sync="" if sync is None else str(sync),
            boot_timeout=int(240 * self.spec.patience),
            ports=ports,
            nodes=tuple(nodes),
        )

    def _place(self, source: Path, name: str) -> Path:
        """A copy, made anew unless it is one already; a running QEMU keeps the old one."""
        target = self.directory / name
        try:
            old, new = target.stat(), source.stat()
            if (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns):
                return target
        except FileNotFoundError:
            pass
        new_file = target.with_name(f"{name}.new")
        shutil.copy2(source, new_file)
        new_file.chmod(0o644)
        new_file.replace(target)
        return target

    def _tunnel(self, node: str, number: int, local: int, remote: int) -> Tunnel:
        return Tunnel(mac=self._mac(node, number), local=local, remote=remote)

    def _mac(self, node: str, number: int) -> str:
        digest = hashlib.sha256(f"{self.prefix}{node}/{number}".encode()).hexdigest()
        return "52:54:00:" + ":".join(digest[at : at + 2] for at in (0, 2, 4))

    def _pair(self) -> tuple[int, int]:
        return self._port(), self._port()

    def _port(self) -> int:
        self._next += 1
        return self._next - 1


def free_block(seed: int, *, blocks: int = BLOCKS) -> int:
    """The first port of a block that nobody uses.

    Raises:
        HostError: all are in use.
    """
    for turn in range(blocks):
        first = FIRST_PORT + BLOCK * ((seed + turn) % BLOCKS)
        if not taken(range(first, first + BLOCK)):
            return first
    raise HostError(
        f"no {BLOCK} free ports in a row between {FIRST_PORT} and {FIRST_PORT + BLOCK * BLOCKS}",
        right="end what listens there; see `ss -lntu`",
    )


def taken(ports: Sequence[int]) -> int | None:
    """The first of some ports of the loopback that somebody uses, TCP or UDP."""
    for port in ports:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(socket.AF_INET, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    return port
    return None


def refuse_orphans(plan: Plan, old: Plan | None, machines: Path) -> None:
    """See that no machine is left that the new plan does not know.

    Args:
        plan: the new one.
        old: the one before.
        machines: Vagrant's directory of machines.

    Raises:
        UserError: one is; nobody could destroy it any more.
    """
    if old is None:
        return
    known = {node.name for node in plan.nodes}
    left = [
        node.name
        for node in old.nodes
        if node.name not in known and (machines / node.name / "libvirt" / "id").exists()
    ]
    if left:
        raise UserError(
            f"machines of another topology are there: {', '.join(left)}",
            right="vagrant destroy -f, then vagrant up again",
        )
