# SPDX-License-Identifier: GPL-2.0-only
"""From a cell and the store to machines that can be started."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from lab.errors import UserError
from lab.image.build import Image
from lab.kernel.artifact import Kernel, load_kernel
from lab.modules.artifact import ModuleSet, load_modules
from lab.provider import Provider
from lab.store import Artifact, Store
from lab.testing.cell import Cell, Peer
from lab.vm import accel
from lab.vm.spec import MachineSpec
from lab.watch.follow import objection


@dataclass(frozen=True)
class Rig:
    """Everything that the tests of one cell stand on."""

    cell: Cell
    store: Store
    kernel: Kernel = field(init=False)
    modules: ModuleSet | None = field(init=False)
    image: Image = field(init=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        cell = self.cell
        kernel = self._kernel(cell.kernel, name=cell.kernel_name, flavour=cell.flavour)
        put(self, "kernel", kernel)
        put(self, "modules", self._modules(self.cell.modules))
        image = self._artifact("image", self.cell.image)
        put(
            self,
            "image",
            Image(
                name="",
                key=image.key,
                root=image.path / "root.erofs",
                packages=image.path / "packages.txt",
            ),
        )

    def _kernel(self, key: str, *, name: str, flavour: str) -> Kernel:
        """The kernel of a key, under the names that this run has for it."""
        found = self._artifact("kernel", key)
        kernel = load_kernel(key=found.key, path=found.path)
        return replace(kernel, name=name or kernel.name, flavour=flavour)

    def _kernel_of_peer(self, peer: Peer) -> Kernel:
        return self._kernel(peer.kernel, name=peer.name, flavour=peer.flavour)

    def _modules(self, key: str | None) -> ModuleSet | None:
        if key is None:
            return None
        found = self._artifact("modules", key)
        return load_modules(key=found.key, path=found.path)

    def _artifact(self, kind: str, key: str) -> Artifact:
        found = self.store.find(kind, key)
        if found is None:
            raise UserError(
                f"cell {self.cell.name}: {kind} {key} is not in the store",
                file=self.store.root,
                right="copy artifacts/ of the store that it was planned with, or plan it here "
                "with `lab test`",
            )
        return found

    @cached_property
    def accel(self) -> str:
        """ "tcg" or "kvm", as the cell asks and the host can."""
        return accel.choose(self.cell.accel, self.store).name

    @property
    def patience(self) -> float:
        """Time limits are multiplied by it."""
        return self.cell.patience

    def spec(self, name: str) -> MachineSpec:
        """The cell's usual machine, under a name."""
        return MachineSpec(
            name=name,
            kernel=self.kernel.bzimage,
            root=self.image.root,
            payload=self.modules.payload if self.modules else None,
            memory=self.cell.memory,
            accel=self.accel,
            cmdline=self.cell.cmdline,
            patience=self.patience,
            prepare=_preparation(self.modules),
        )

    def peer(self, kernel: str | None, flavour: str | None) -> Peer | None:
        """Another kernel or flavour of this run; None where it has no such one.

        What is not said is as in the cell.
        """
        wanted = (kernel or self.kernel.name, flavour or self.cell.flavour)
        return next((p for p in self.cell.peers if (p.name, p.flavour) == wanted), None)

    def peer_spec(self, peer: Peer, name: str) -> MachineSpec:
        """The usual machine of another kernel of this run."""
        modules = self._modules(peer.modules)
        return replace(
            self.spec(name),
            kernel=self._kernel_of_peer(peer).bzimage,
            payload=modules.payload if modules else None,
            memory=peer.memory,
            cmdline=peer.cmdline,
            patience=peer.patience,
            prepare=_preparation(modules),
        )

    def kernel_of(self, spec: MachineSpec) -> Kernel:
        """The kernel that a machine runs: the cell's, or a peer's."""
        return next(
            (kernel for kernel, _ in self._peers if kernel.bzimage == spec.kernel), self.kernel
        )

    def modules_for(self, key: str) -> tuple[Kernel, ModuleSet | None]:
        """The kernel of a key, and the modules that its machines get."""
        return next(
            (pair for pair in self._peers if pair[0].key == key), (self.kernel, self.modules)
        )

    @cached_property
    def _peers(self) -> tuple[tuple[Kernel, ModuleSet | None], ...]:
        # A store that a cell was carried to may lack what its tests do not use.
        return tuple(
            (self._kernel_of_peer(peer), self._modules(peer.modules))
            for peer in self.cell.peers
            if peer.kernel != self.cell.kernel and self.store.find("kernel", peer.kernel)
        )

    def _objection(self, spec: MachineSpec, log: str) -> str | None:
        kernel = self.kernel_of(spec)
        return objection(log, kernel=kernel.version, flavour=kernel.flavour)

    def provider(self, *, cold: bool = False) -> Provider:
        """The backend that the cell asks for.

        Args:
            cold: machines are booted, never cloned.

        Errors:
            UserError: there is no such provider.
        """
        # Imported here: each backend pulls in libraries of its own.
        if self.cell.provider == "qemu":
            from lab.provider.qemu import QemuProvider

            return QemuProvider(store=None if cold else self.store, inspect=self._objection)
        if self.cell.provider == "vagrant":
            module = importlib.import_module("lab.provider.vagrant")
            provider: Provider = module.VagrantProvider(store=self.store)
            return provider
        raise UserError(f"there is no provider `{self.cell.provider}`", right="qemu or vagrant")


def _preparation(modules: ModuleSet | None) -> tuple[str, ...]:
    return ("modprobe lunatik",) if modules and "lunatik.ko" in modules.files else ()


def shaped(spec: MachineSpec, shape: dict[str, object]) -> MachineSpec:
    """A machine with some of its attributes changed by a test.

    Errors:
        UserError: a machine has no such attribute.
    """
    unknown = set(shape) - set(MachineSpec.__dataclass_fields__)
    if unknown:
        raise UserError(
            f"a machine has no `{min(unknown)}`",
            right="one of " + ", ".join(sorted(MachineSpec.__dataclass_fields__)),
        )
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in shape.items()}
    return replace(spec, **values)  # type: ignore[arg-type]


def checkout() -> Path:
    """The directory that lab.yaml, tests/ and lunatik-src/ stand in."""
    return Path(__file__).resolve().parent.parent.parent


def root_of(tests: tuple[str, ...], root: Path) -> Path:
    """pytest's root: the checkout, or what the tests have in common elsewhere.

    A test above its root has no readable name.
    """
    paths = [root / test.partition("::")[0] for test in tests]
    if all(path.is_relative_to(root) for path in paths):
        return root
    common = Path(os.path.commonpath([path.resolve() for path in paths]))
    return common if common.is_dir() else common.parent
