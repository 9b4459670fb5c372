# SPDX-License-Identifier: GPL-2.0-only
"""A topology, running: machines wired to each other, links that can go bad."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lab.errors import UserError
from lab.marked import Where, similar
from lab.net.bridge import Bridge
from lab.net.capture import Capture
from lab.net.impairment import Impairment
from lab.net.switch import Switch
from lab.net.topology import LinkEntry, NodeEntry, Topology
from lab.vm.errors import LineRefused
from lab.vm.machine import CONFIGURE, Machine
from lab.vm.runtime import runtime
from lab.vm.spec import Dgram, MachineSpec, Nic, Vde, Wire

#: Gives the spec of a node by name; the network adds cards, memory and CPUs.
Specs = Callable[[str], MachineSpec]
#: Starts a machine that somebody else ends.
Start = Callable[[MachineSpec], Machine]


@dataclass(frozen=True)
class End:
    """One end of a link: a node's card."""

    machine: Machine
    card: int


class Link:
    """What joins nodes; `impair` and `down` work while frames pass."""

    def __init__(self, *, name: str, ends: dict[str, End], bridge: Bridge | None) -> None:
        self.name = name
        self.ends = ends
        self._bridge = bridge

    def impair(self, *, toward: str | None = None, **faults: object) -> None:
        """Make the wire bad: impair(delay="10ms", loss="1%"); impair() mends it.

        Args:
            toward: the node to which the faults apply; both directions if None.
            faults: see Impairment.

        Raises:
            UserError: the link has no bridge node, or there is no such fault.
        """
        if len(self.ends) > 2:
            raise UserError(
                f"the link `{self.name}` is a LAN and cannot be impaired",
                right="give the node a wire of its own",
            )
        if self._bridge is None:
            raise UserError(
                f"the link `{self.name}` cannot be impaired",
                right="say `bridge: true` in its topology",
            )
        try:
            wanted = Impairment.model_validate(faults)
        except ValueError as error:
            raise UserError(f"impair({faults}): {error}") from None
        for number, node in enumerate(self.ends):
            if toward in (None, node):
                self._bridge.impair(wanted, toward=number)
        if toward is not None and toward not in self.ends:
            raise UserError(
                f"the link `{self.name}` has no end at `{toward}`", right=similar(toward, self.ends)
            )

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Unplugged within the block: both ends lose their carrier."""
        self._plug(False)
        try:
            yield
        finally:
            self._plug(True)

    def _plug(self, up: bool) -> None:
        for end in self.ends.values():
            if end.machine.body.alive():
                end.machine.body.monitor("set_link", name=f"net{end.card}", up=up)


class Network:
    """Machines and links, made from a topology; `stop` ends what no machine ends."""

    def __init__(self, topology: Topology, *, specs: Specs, start: Start, directory: Path) -> None:
        self.topology = topology
        self.directory = directory
        self._start = start
        self._switches: list[Switch] = []
        self._bridges: dict[str, list[Nic]] = {}
        self._captures = 0
        # A switch runs from its making on, and the specs may be refused.
        try:
            self.machines = self._start_all(self._specs(specs))
            self.links = {name: self._link(name, entry) for name, entry in topology.links.items()}
        except BaseException:
            self.stop()
            raise

    def __getitem__(self, node: str) -> Machine:
        """A node's machine."""
        if node not in self.topology.nodes:
            raise UserError(f"there is no node `{node}`", right=similar(node, self.topology.nodes))
        return self.machines[node]

    def nodes(self, *names: str) -> list[Machine]:
        """Machines by name; all of them if none is named."""
        return [self[name] for name in names or self.topology.nodes]

    def link(self, name: str) -> Link:
        """A link by name."""
        if name not in self.links:
            raise UserError(f"there is no link `{name}`", right=similar(name, self.links))
        return self.links[name]

    def address(self, node: str, *, link: str | None = None, version: int = 4) -> str:
        """A node's address, on its first link or the one named.

        Raises:
            UserError: there is no such node or link, or no such address.
        """
        name = self._link_of(node, link)
        for text in self.topology.links[name].ends[node]:
            interface = ipaddress.ip_interface(text)
            if interface.version == version:
                return str(interface.ip)
        raise UserError(f"`{node}` has no IPv{version} address on the link `{name}`")

    def capture(self, node: str, link: str | None = None) -> Capture:
        """Capture a node's card, on its first link or the one named; see Capture.

        Raises:
            UserError: there is no such node or link.
        """
        name = self._link_of(node, link)
        self._captures += 1
        self.directory.mkdir(parents=True, exist_ok=True)
        end = self.links[name].ends[node]
        return Capture(
            machine=end.machine,
            card=end.card,
            file=self.directory / f"{node}-{name}-{self._captures}.pcap",
        )

    def _link_of(self, node: str, link: str | None) -> str:
        """The link of a node that is meant: its first where none is named."""
        if node not in self.topology.nodes:
            raise UserError(f"there is no node `{node}`", right=similar(node, self.topology.nodes))
        cards = self.topology.cards(node)
        if link is None and cards:
            return cards[0]
        if link is None:
            raise UserError(f"`{node}` is on no link")
        if link not in cards:
            raise UserError(f"`{node}` is on no link `{link}`", right=similar(link, cards))
        return link

    def stop(self) -> None:
        """End the switches; the machines belong to who started them."""
        for switch in self._switches:
            switch.stop()

    # How it is made

    def _wire(self) -> dict[str, list[Nic]]:
        """Each node's cards, with wires in them."""
        plugs: dict[tuple[str, str], Wire] = {}
        for name, link in self.topology.links.items():
            for node, wire in self._plugs(name, link).items():
                plugs[name, node] = wire
        return {
            node: [Nic(wire=plugs[link, node]) for link in self.topology.cards(node)]
            for node in self.topology.nodes
        }

    def _plugs(self, name: str, link: LinkEntry) -> dict[str, Wire]:
        ends = list(link.ends)
        if len(ends) > 2:
            # One port to spare: vde_switch counts the port that it listens on.
            switch = Switch(ports=len(ends) + 1)
            self._switches.append(switch)
            return {node: Vde(path=switch.path) for node in ends}
        if not link.bridged:
            return dict(zip(ends, _pair(), strict=True))
        (left, inner_left), (right, inner_right) = _pair(), _pair()
        self._bridges[name] = [Nic(wire=inner_left), Nic(wire=inner_right)]
        return {ends[0]: left, ends[1]: right}

    def _specs(self, specs: Specs) -> list[MachineSpec]:
        cards = self._wire()
        nodes = [
            self._spec(specs(name), node, cards[name]) for name, node in self.topology.nodes.items()
        ]
        bridges = [
            replace(specs(_bridge_name(link)), nics=tuple(nics))
            for link, nics in self._bridges.items()
        ]
        return nodes + bridges

    @staticmethod
    def _spec(spec: MachineSpec, node: NodeEntry, cards: list[Nic]) -> MachineSpec:
        return replace(
            spec,
            nics=tuple(cards),
            cpus=node.cpus,
            memory=spec.memory if node.memory is None else node.memory,
        )

    def _start_all(self, specs: list[MachineSpec]) -> dict[str, Machine]:
        if not specs:
            return {}
        with ThreadPoolExecutor(len(specs)) as pool:
            machines = list(pool.map(self._start_one, specs))
        return {machine.name: machine for machine in machines}

    def _start_one(self, spec: MachineSpec) -> Machine:
        machine = self._start(spec)
        if spec.name in self.topology.nodes:
            self._configure(machine)
        return machine

    def _configure(self, machine: Machine) -> None:
        wanted = steps(self.topology, machine.name)
        try:
            machine.configure([step.line for step in wanted])
        except LineRefused as error:
            if error.index is None:
                raise
            raise wanted[error.index].refused(machine.name, error.why) from error
        if commands := self.topology.nodes[machine.name].run:
            machine.succeed("\n".join(["set -e", *commands]))

    def _link(self, name: str, entry: LinkEntry) -> Link:
        ends = {
            node: End(self.machines[node], self.topology.cards(node).index(name))
            for node in entry.ends
        }
        bridge = Bridge(self.machines[_bridge_name(name)]) if entry.bridged else None
        link = Link(name=name, ends=ends, bridge=bridge)
        if entry.impair is not None:
            link.impair(**entry.impair.model_dump(exclude_none=True))
        return link


@dataclass(frozen=True)
class Step:
    """A line of vm-images/guest/network.c, and the place in the topology that wants it."""

    line: str
    where: Where

    def refused(self, node: str, why: str) -> UserError:
        """That the kernel would not do it; why, in its own words."""
        return self.where.error(f"the kernel of `{node}` refused `{self.line}`: {why}")


def steps(topology: Topology, node: str) -> list[Step]:
    """What makes a machine a node: sysctls, addresses, routes."""
    return [
        *_sysctls(topology, node),
        *_addresses(topology, node),
        *_routes(topology, node),
    ]


def configuration(topology: Topology, node: str) -> str:
    """The lines of sh that make a machine a node: its steps, and its commands."""
    lines = ["set -e"]
    if wanted := steps(topology, node):
        lines += [f"{CONFIGURE} <<'END'", *(step.line for step in wanted), "END"]
    return "\n".join([*lines, *topology.nodes[node].run])


def _sysctls(topology: Topology, node: str) -> Iterator[Step]:
    for key, value in topology.nodes[node].sysctls.items():
        where = topology.where("nodes", node, "sysctls", key)
        yield Step(f"write {sysctl_file(key)} {value}", where)


def sysctl_file(key: str) -> str:
    """Where a sysctl is, as sysctl(8) has it: dots part, unless a slash comes first."""
    if "/" not in key.partition(".")[0]:
        key = key.translate(str.maketrans("./", "/."))
    return f"/proc/sys/{key}"


def _addresses(topology: Topology, node: str) -> Iterator[Step]:
    for card, link in enumerate(topology.cards(node)):
        yield Step(f"up eth{card}", topology.where("links", link, "ends", node))
        for number, address in enumerate(topology.links[link].ends[node]):
            where = topology.where("links", link, "ends", node, number)
            yield Step(f"address eth{card} {ipaddress.ip_interface(address)}", where)


def _routes(topology: Topology, node: str) -> Iterator[Step]:
    for prefix, gateway in topology.nodes[node].routes.items():
        where = topology.where("nodes", node, "routes", prefix)
        yield Step(f"route {_whole(prefix, gateway)} {gateway}", where)


def _whole(prefix: str, gateway: str) -> str:
    """A prefix with its length: which one is the default depends on the gateway."""
    if prefix == "default":
        return "::/0" if ":" in gateway else "0.0.0.0/0"
    return str(ipaddress.ip_network(prefix))


def _pair() -> tuple[Wire, Wire]:
    """The two ends of a wire."""
    home = runtime().directory()
    left, right = home / "l", home / "r"
    return Dgram(local=left, remote=right), Dgram(local=right, remote=left)


def _bridge_name(link: str) -> str:
    """Told apart from nodes by its capital, which no node's name has."""
    return f"W-{link}"
