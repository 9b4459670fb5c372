# SPDX-License-Identifier: GPL-2.0-only
"""lab up --plan: what the Vagrantfile makes machines from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.store import Store
    from lab.vm.spec import MachineSpec

#: Where a Vagrantfile in the checkout keeps its plan.
STATE = ".vagrant/lab"


def print_plan(
    spec: MachineSpec, store: Store, *, topology: str | None, into: Path | None, as_json: bool
) -> None:
    """Write a plan, and print it.

    Args:
        spec: the usual machine.
        topology: a name or a file; $LAB_TOPOLOGY, else "pair", where None.
        into: state directory; that of the checkout's Vagrantfile where None.

    Raises:
        HostError: we are root, or something that Vagrant needs is missing.
        UserError: the topology is wrong, or machines of another one are there.
    """
    from lab.errors import HostError
    from lab.image import box
    from lab.net import topology as topologies
    from lab.provider import vagrant_plan, vagrant_preflight
    from lab.testing.rig import checkout

    if os.geteuid() == 0:
        raise HostError(
            "libvirt's session wants an ordinary user, and this is root",
            right="run vagrant as an ordinary user, or `lab test --provider vagrant`, "
            "which drops root's rights by itself",
        )
    vagrant_preflight.require()
    vagrant_preflight.require_symbols(spec.kernel.with_name("config"))
    name = topology or os.environ.get("LAB_TOPOLOGY") or "pair"
    state = (into or checkout() / STATE).absolute()
    old = vagrant_plan.load(state)
    planner = vagrant_plan.Planner(
        state, box=box.build(checkout() / "vm-images/box.yaml", store), spec=spec
    )
    plan = planner.topology(topologies.read(name), sources=checkout() / "lunatik-src")
    vagrant_plan.refuse_orphans(plan, old, state.parent / "machines")
    plan.save(state)
    if as_json:
        print((state / vagrant_plan.PLAN).read_text())
        return
    for node in plan.nodes:
        print(f"{node.name}: {node.guest}, {node.memory} MiB, ssh at 127.0.0.1:{node.ssh_port}")
