# SPDX-License-Identifier: GPL-2.0-only
"""Topologies as data: nodes, the links between them, addresses, routes.

A topology is a YAML file (docs/topologies.md); ready-made ones stand in
``topologies/`` beside this file.  A link with two ends is a wire, one with
more a LAN at a switch.  The cards of a node are numbered in the order in which
the links name it: its first link is eth0.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, ValidationError

from lab.errors import UserError
from lab.manifest import Entry, Names, first_error
from lab.marked import load, similar
from lab.net.impairment import Impairment
from lab.vm.spec import NIC_STEPS

READY_MADE = Path(__file__).with_name("topologies")


def _address(value: str) -> str:
    if "/" not in value:
        raise ValueError(f"write the prefix length too: {value}/24")
    ipaddress.ip_interface(value)
    return value


def _gateway(value: str) -> str:
    ipaddress.ip_address(value)
    return value


def _prefix(value: str) -> str:
    if value != "default":
        ipaddress.ip_network(value)
    return value


#: A sysctl's name and value are words of one line.
Word = Annotated[str, Field(pattern=r"^\S+$")]
Line = Annotated[str, Field(pattern=r"^[^\n]+$")]

#: A guest's host name, and part of file names.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
Address = Annotated[str, AfterValidator(_address)]
Gateway = Annotated[str, AfterValidator(_gateway)]
Prefix = Annotated[str, AfterValidator(_prefix)]


class NodeEntry(Entry):
    """One machine.

    Attributes:
        kernel, flavour: another of the same run; the test's own where None.
        memory: MiB; the flavour's where None.
        cpus: virtual processors.
        routes: prefix, or "default", to gateway.
        sysctls: written before the cards come up.
        run: commands, once addresses and routes are set.
    """

    kernel: str | None = None
    flavour: str | None = None
    memory: Annotated[int, Field(ge=128)] | None = None
    cpus: Annotated[int, Field(ge=1, le=8)] = 1
    routes: dict[Prefix, Gateway] = Field(default_factory=dict)
    sysctls: dict[Word, Line] = Field(default_factory=dict)
    run: Names = ()


class LinkEntry(Entry):
    """What joins nodes.

    Attributes:
        ends: addresses of each node's card on this link.
        bridge: a node stands in the wire, so that it can be impaired.
        impair: how, from the start and in both directions; implies bridge.
    """

    ends: dict[str, tuple[Address, ...]]
    bridge: bool = False
    impair: Impairment | None = None

    @property
    def bridged(self) -> bool:
        """Whether a bridge node stands in the wire."""
        return self.bridge or self.impair is not None


class Topology(Entry):
    """Nodes and links."""

    nodes: dict[Name, NodeEntry]
    links: dict[Name, LinkEntry] = Field(default_factory=dict)

    def cards(self, node: str) -> list[str]:
        """The links of a node, in the order of its cards: the first is eth0."""
        return [name for name, link in self.links.items() if node in link.ends]

    def bridged(self) -> Topology:
        """The same with a bridge node in every wire."""
        links = {
            name: link.model_copy(update={"bridge": len(link.ends) == 2})
            for name, link in self.links.items()
        }
        return self.model_copy(update={"links": links})

    def drawing(self) -> dict[str, object]:
        """For the report."""
        return {
            "nodes": list(self.nodes),
            "links": [{"name": n, "nodes": list(link.ends)} for n, link in self.links.items()],
        }

    def check(self) -> None:
        """See that it can be made: links join nodes that there are, and the like.

        Raises:
            UserError: with the line.
        """
        for name, node in self.nodes.items():
            for prefix, gateway in node.routes.items():
                if prefix != "default" and (":" in prefix) is not (":" in gateway):
                    raise self.where("nodes", name, "routes", prefix).error(
                        f"the route to {prefix} has the gateway {gateway}",
                        "one of the same protocol",
                    )
            if len(self.cards(name)) > NIC_STEPS[-1]:
                raise self.where("nodes", name).error(
                    f"the node `{name}` has {len(self.cards(name))} links",
                    f"{NIC_STEPS[-1]} at most",
                )
        for name, link in self.links.items():
            where = self.where("links", name)
            if len(link.ends) < 2:
                raise where.error(f"the link `{name}` has {len(link.ends)} end", "two or more")
            if link.bridged and len(link.ends) != 2:
                raise where.error(
                    f"the link `{name}` is a LAN and cannot be impaired",
                    "give the node a wire of its own to the LAN's switch",
                )
            for end in link.ends:
                if end not in self.nodes:
                    raise where.error(
                        f"the link `{name}` has an end at `{end}`, which is no node",
                        similar(end, self.nodes),
                    )


def read(name_or_file: str | Path) -> Topology:
    """A ready-made topology by name ("pair"), or the one in a file.

    Raises:
        UserError: with file and line.
    """
    file = Path(name_or_file)
    if isinstance(name_or_file, str) and not file.suffix:
        file = READY_MADE / f"{name_or_file}.yaml"
        if not file.is_file():
            known = [path.stem for path in READY_MADE.glob("*.yaml")]
            raise UserError(
                f"there is no topology `{name_or_file}`", right=similar(name_or_file, known)
            )
    raw = load(file)
    try:
        topology = Topology.model_validate(raw)
    except ValidationError as error:
        raise first_error(raw, error) from None
    topology.check()
    return topology
