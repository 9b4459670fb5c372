# SPDX-License-Identifier: GPL-2.0-only
"""lab up, down, status, shell, exec, ssh, put, get: machines for people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.commands.options import Config, Flavour, Json, Kernel, Llvm, Modules, Patches, chosen

if TYPE_CHECKING:
    from lab.testing.lease import Leases
    from lab.vm.keep import Keep, Kept
    from lab.vm.spec import MachineSpec

#: What `lab exec` returns when the lab failed, as the guest's status may be any.
LAB_FAILED = 125

#: Seconds; a command of `lab exec` may take as long as it likes.
FOREVER = 1e9

Node = Annotated[str, typer.Argument(metavar="NODE", help="As `lab status` shows it.")]

#: Seconds that `lab up` waits for memory which other machines have.
ROOM = 10.0

#: Whatever stands after NODE belongs to the guest's command.
PASS_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("up")(up)
    app.command("down")(down)
    app.command("status")(status)
    app.command("shell")(shell)
    app.command("exec", context_settings=PASS_ON)(execute)
    app.command("ssh", context_settings=PASS_ON)(ssh)
    app.command("put")(put)
    app.command("get")(get)


def up(  # noqa: PLR0917 - typer calls it by name
    nodes: Annotated[
        list[str] | None, typer.Argument(metavar="NODE", help="Names of your choice.")
    ] = None,
    kernel: Kernel = None,
    flavour: Flavour = "default",
    patches: Patches = None,
    config: Config = None,
    module: Modules = None,
    memory: Annotated[
        int | None, typer.Option(metavar="MIB", min=64, help="The flavour's if left out.")
    ] = None,
    cpus: Annotated[int, typer.Option(min=1, max=8)] = 1,
    accel: Annotated[str, typer.Option(metavar="auto|tcg|kvm")] = "auto",
    llvm: Llvm = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Start nothing: print what the Vagrantfile reads.")
    ] = False,
    topology: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Of the plan; $LAB_TOPOLOGY, or pair.")
    ] = None,
    into: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the plan and its files are kept.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Build what is missing, and start machines that stay until `lab down`."""
    import json
    import os
    from dataclasses import replace

    from lab.commands.plan import print_plan
    from lab.errors import UserError
    from lab.store import Store
    from lab.testing.lease import Leases, ledger_of
    from lab.vm.keep import Keep

    if not plan and (topology or into):
        raise UserError(
            "`--topology` and `--into` are of a plan", right="add --plan, or leave them out"
        )
    if plan and nodes:
        raise UserError(
            f"`{nodes[0]}` and `--plan` do not go together",
            right="a plan's machines are those of its --topology",
        )
    names = nodes or ["a"]
    _check_names(names)
    store = Store()
    keep = Keep(store)
    if not plan:
        keep.refuse_running(names)
    spec, label = _spec(
        store,
        kernel=(os.environ.get("LAB_KERNEL") or None) if plan and kernel is None else kernel,
        flavour=flavour,
        patches=patches,
        config=config,
        modules=tuple(module or ()),
        memory=memory,
        accel=accel,
        llvm=llvm,
    )
    if plan:
        print_plan(spec, store, topology=topology, into=into, as_json=as_json)
        return
    leases = Leases(ledger_of(store))
    rows = []
    for name in names:
        kept = _boot(keep, leases, replace(spec, name=name, cpus=cpus), label)
        rows.append(kept.as_json())
        if not as_json:
            print(
                f"{name}: {label}; lab shell {name}, lab exec {name} -- COMMAND; "
                f"logs in {kept.directory}"
            )
    if as_json:
        print(json.dumps(rows, indent=1))


def down(
    nodes: Annotated[
        list[str] | None, typer.Argument(metavar="NODE", help="All if left out.")
    ] = None,
) -> None:
    """End machines of `lab up`; their logs go with them."""
    keep = _keep()
    for name in nodes or [kept.name for kept in keep.all()]:
        keep.down(name)


def status(as_json: Json = False) -> None:
    """Show the machines of `lab up`."""
    import json
    import time

    from lab.progress import seconds, size

    rows = [
        {**kept.as_json(), "alive": kept.alive(), "resident": _resident(kept.pid)}
        for kept in _keep().all()
    ]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        state = "up" if row["alive"] else "ended"
        print(
            f"{row['name']:12} {state:6} {row['label']:24} "
            f"{seconds(time.time() - row['since']):>14} {size(row['resident']):>10}  "
            f"ssh {row['ssh_port']}  {row['directory']}"
        )


def shell(node: Node) -> None:
    """Open a terminal on a machine; Control-] leaves it."""
    from lab.vm import terminal

    terminal.shell(_keep().get(node))


def execute(
    node: Node,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND")],
    stdin: Annotated[
        bool, typer.Option("--stdin", "-i", help="Give the command our standard input.")
    ] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, show_default="none")
    ] = FOREVER,
) -> None:
    """Run a command on a machine; its status is ours, 125 if the lab failed.

    One word is a line for the guest's shell, several are a program and its
    arguments.  Output is shown when the command has ended.
    """
    import sys

    from lab.progress import note
    from lab.vm.channel import AgentChannel
    from lab.vm.keep import attach
    from lab.vm.machine import CUT

    with _lab_failures():
        machine = attach(_keep().get(node))
        data = sys.stdin.buffer.read() if stdin else None
        assert isinstance(machine.channel, AgentChannel)
        done = machine.channel.run_raw(_joined(command), timeout=timeout, stdin=data)
    for stream, text in ((sys.stdout, done.stdout), (sys.stderr, done.stderr)):
        stream.buffer.write(text)
        stream.flush()
    if done.cut:
        note(f"{node}: this is not all that it wrote, only {CUT} (lab get)")
        raise typer.Exit(LAB_FAILED)
    raise typer.Exit(done.status)


def ssh(
    node: Node,
    command: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND")] = None,
) -> None:
    """Log in to a machine by SSH, or run a command; its status is ours."""
    import subprocess

    from lab.errors import HostError
    from lab.vm import ssh as access

    argv = access.ready(_keep().get(node)).argv([_joined(command)] if command else [])
    try:
        done = subprocess.run(argv, check=False)
    except FileNotFoundError:
        raise HostError(
            "the program `ssh` is not installed", right="install the package openssh-client"
        ) from None
    raise typer.Exit(done.returncode)


def put(
    node: Node,
    source: Annotated[Path, typer.Argument(help="A file or a directory here.")],
    target: Annotated[str, typer.Argument(help="Where to, there.")],
) -> None:
    """Copy a file or a directory to a machine, by SSH."""
    from lab.errors import UserError
    from lab.vm import ssh as access

    if not source.exists():
        raise UserError("there is no such file", file=source)
    access.put(_keep().get(node), source, target)


def get(
    node: Node,
    source: Annotated[str, typer.Argument(help="A file there.")],
    target: Annotated[Path, typer.Argument(help="Where to, here; a directory takes it in.")],
) -> None:
    """Copy a file from a machine, by SSH."""
    from lab.vm import ssh as access

    access.get(_keep().get(node), source, target)


def _keep() -> Keep:
    from lab.store import Store
    from lab.vm.keep import Keep

    return Keep(Store())


def _spec(
    store: Any,
    *,
    kernel: str | None,
    flavour: str,
    patches: list[str] | None,
    config: Path | None,
    modules: tuple[Path, ...],
    memory: int | None,
    accel: str,
    llvm: bool,
) -> tuple[MachineSpec, str]:
    """The machine to start, and what it runs in a few words."""
    from lab import manifest
    from lab.testing.stages import Wanted, build
    from lab.vm import accel as accelerators
    from lab.vm import argv
    from lab.vm.spec import MachineSpec

    argv.program()  # before minutes are spent on a build
    chosen_accel = accelerators.choose(accel, store).name
    lab = manifest.read()
    wanted = Wanted(
        kernels=(lab.kernel_or_default(kernel),),
        flavours=(flavour,),
        config=config,
        patches=chosen(patches),
        modules=modules,
        llvm=llvm,
    )
    built = build(lab, wanted, store)[0]
    spec = MachineSpec(
        name="a",
        kernel=built.kernel.bzimage,
        root=built.image.root,
        payload=built.modules.payload if built.modules else None,
        memory=memory or built.flavour.memory,
        cmdline=built.flavour.cmdline,
        accel=chosen_accel,
        patience=built.flavour.patience,
    )
    return spec, f"{built.kernel.version} {flavour}"


def _boot(keep: Keep, leases: Leases, spec: MachineSpec, label: str) -> Kept:
    """Start a machine that leases its memory for as long as it lives."""
    from lab.progress import progress
    from lab.testing.lease import charge

    lease = leases.take(
        holder=f"up-{spec.name}", memory=charge(spec.memory, lasting=True), cores=0, timeout=ROOM
    )
    try:
        with progress(f"boot {spec.name}"):
            kept = keep.up(spec, label=label)
    except BaseException:
        leases.give_back(lease)
        raise
    leases.hand_over(lease, kept.pid)
    return kept


def _check_names(names: list[str]) -> None:
    from lab.errors import UserError
    from lab.vm.keep import NAME

    for name in names:
        if not NAME.fullmatch(name):
            raise UserError(
                f"`{name}` cannot be a machine's name",
                right="small letters, digits and - between them, at most 32",
            )
    if len(set(names)) < len(names):
        raise UserError("a name is given twice")


def _joined(command: list[str]) -> str:
    """The guest's shell line; a leading `--` is only the end of our own options."""
    import shlex

    if command[:1] == ["--"]:
        command = command[1:]
    return command[0] if len(command) == 1 else shlex.join(command)


def _resident(pid: int) -> int:
    """Bytes of memory that a process has to itself or shares."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    import resource

    return pages * resource.getpagesize()


@contextlib.contextmanager
def _lab_failures() -> Iterator[None]:
    """Turn every failure of the lab's own into status 125."""
    import sys

    try:
        yield
    except Exception as error:
        print(f"lab: {str(error) or type(error).__name__}", file=sys.stderr)
        raise typer.Exit(LAB_FAILED) from error
