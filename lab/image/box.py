# SPDX-License-Identifier: GPL-2.0-only
"""Builds the Vagrant box: a Debian with systemd on an ext4 disk, for libvirt.

The box has neither kernel nor boot loader: machines are started with a kernel
of the lab's (docs/vagrant.md).  The disk has no partition table, because there
is no loader to read one and no initramfs to wait for one.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from lab import marked, seal
from lab.errors import HostError, InfraError
from lab.image import build as images
from lab.image import recipe as recipes
from lab.image.recipe import Recipe, Text
from lab.manifest import Entry, first_error
from lab.process import ProgramFailed, run
from lab.progress import progress
from lab.store import Json, Store

NAME = "lunatik-lab"

#: Changes with the way boxes are made, so that older ones are not used.
WAY = 1

Package = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9+.-]+$")]


class BoxRecipe(Entry):
    """What is in the box (vm-images/box.yaml says what each field means)."""

    like: Text
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    disk: Annotated[int, Field(ge=1, le=64)]
    overlay: Text
    key: Text
    packages: dict[Package, Text]
    mask: tuple[Text, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Box:
    """A box in the store.

    Attributes:
        name: Vagrant's.
        version: Vagrant's: the recipe's, and what distinguishes its content.
        file: the .box.
    """

    name: str
    version: str
    file: Path

    def catalog(self, file: Path | None = None) -> str:
        """What `vagrant box add` reads: with it alone a box has a version.

        Args:
            file: where the .box is, if not in the store.
        """
        provider = {"name": "libvirt", "url": (file or self.file).as_uri()}
        versions = [{"version": self.version, "providers": [provider]}]
        return json.dumps({"name": self.name, "versions": versions}, indent=1)


def read(file: Path) -> BoxRecipe:
    """The recipe in a file.

    Raises:
        UserError: at the file and line of the mistake.
    """
    raw = marked.load(file)
    try:
        recipe = BoxRecipe.model_validate(raw)
    except ValidationError as error:
        raise first_error(raw, error) from None
    for field in ("like", "overlay", "key"):
        if not recipe.resolve(field).exists():
            raise recipe.where(field).error(f"there is no `{recipe.resolve(field)}`")
    return recipe


def build(file: Path, store: Store) -> Box:
    """The box of a recipe, built now if the store has none; takes two minutes.

    Raises:
        UserError: the recipe is wrong, or names a package that is not there.
        HostError: a program is missing, the mirror is not reachable.
    """
    recipe = read(file)
    debian = _debian(recipe)
    parts = inputs(recipe, debian)

    def make(path: Path) -> None:
        tar = store.make("debian", images.packages(debian), lambda at: images.bootstrap(debian, at))
        _make(recipe, debian, tar.path / "root.tar", path)

    made = store.make("box", parts, make)
    return Box(name=NAME, version=version(recipe, made.key), file=made.path / "lunatik-lab.box")


def inputs(recipe: BoxRecipe, debian: Recipe) -> dict[str, Json]:
    """Everything that decides what a box is."""
    return {
        "way": WAY,
        "packages": images.packages(debian),
        "program": images.files(debian.resolve("program"), follow=True),
        "overlay": images.files(recipe.resolve("overlay")),
        "key": seal.digest_file(recipe.resolve("key")),
        "version": recipe.version,
        "disk": recipe.disk,
        "mask": list(recipe.mask),
    }


def version(recipe: BoxRecipe, key: str) -> str:
    """A version of its own for each content.

    Vagrant takes a box for the same as long as its version is, and so does
    the libvirt volume made of it.
    """
    return f"{recipe.version}.{int(key[:8], 16)}"


def _debian(recipe: BoxRecipe) -> Recipe:
    base = recipes.read(recipe.resolve("like"))
    return base.model_copy(update={"packages": {**base.packages, **recipe.packages}})


def _make(recipe: BoxRecipe, debian: Recipe, tar: Path, path: Path) -> None:
    with progress("box", total=3) as step:
        step.update(0, detail="disk")
        images.compile_program(debian, path / "guest")
        _as_owner_of_all(_script(recipe, tar, path))
        step.update(1, detail="qcow2")
        disk = path / "box.img"
        run(["qemu-img", "convert", "-q", "-O", "qcow2", path / "disk", disk], timeout=300)
        metadata = {"provider": "libvirt", "format": "qcow2", "virtual_size": recipe.disk}
        (path / "metadata.json").write_text(json.dumps(metadata))
        step.update(2, detail="packing")
        names = ("metadata.json", "box.img")
        run(["tar", "-czf", path / "lunatik-lab.box", "-C", path, *names], timeout=600)
        for name in ("guest", "disk", *names):
            (path / name).unlink()


def _as_owner_of_all(script: str) -> None:
    """Run a script as root, or as somebody who is root in a namespace.

    Owners and capabilities in the tree are real: sudo and ping want them.
    """
    prefix = [] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--map-auto"]
    try:
        run([*prefix, "sh", "-euc", script], timeout=600)
    except ProgramFailed as error:
        if prefix and "unshare:" in error.finished.stderr:
            raise HostError(
                f"the box's files need owners of their own: {error.finished.tail(3)}",
                right="install uidmap and give yourself ranges in /etc/subuid and /etc/subgid",
            ) from error
        raise InfraError(f"the box's disk cannot be made:\n{error.finished.tail(6)}") from error


def _script(recipe: BoxRecipe, tar: Path, path: Path) -> str:
    """Lines of sh that turn the packages into a disk; a tree beside it is gone afterwards."""
    q = {
        "tree": path / "tree",
        "tar": tar,
        "overlay": recipe.resolve("overlay"),
        "guest": path / "guest",
        "disk": path / "disk",
        "key": recipe.resolve("key"),
    }
    words = {name: shlex.quote(str(value)) for name, value in q.items()} | {
        "mask": " ".join(map(shlex.quote, recipe.mask)),
        "size": f"{recipe.disk}G",
        "hidden": " ".join(images.PRIVATE),
    }
    return _STEPS.format(**words)


_STEPS = """
trap 'rm -rf {tree}' EXIT
mkdir {tree}
tar --extract --preserve-permissions --same-owner --xattrs --xattrs-include='*' \\
    --exclude='./dev/*' --file {tar} --directory {tree}
cd {tree}
rm -f {hidden}
mkdir -p dev proc run sys tmp
cp -r --no-preserve=ownership --preserve=mode,links {overlay}/. .
chmod 440 etc/sudoers.d/vagrant
install -D -m 755 {guest} usr/lib/lab/guest
ln -sf guest usr/lib/lab/run
ln -sf guest usr/lib/lab/configure
for unit in {mask}; do ln -sf /dev/null etc/systemd/system/$unit; done
# Hostname, keys and machine-id are made now: each costs seconds under emulation.
rm -f etc/ssh/ssh_host_*
ssh-keygen -q -t ed25519 -N '' -C lunatik-lab -f etc/ssh/ssh_host_ed25519_key
tr -d - </proc/sys/kernel/random/uuid >etc/machine-id
chroot . /usr/sbin/useradd --create-home --shell /bin/bash --password '*' vagrant
for home in root home/vagrant; do
    install -d -m 700 $home/.ssh
    install -m 600 {key} $home/.ssh/authorized_keys
done
chroot . chown -R vagrant:vagrant /home/vagrant
rm -f etc/systemd/system/*.wants/ssh.service etc/systemd/system/sshd.service
truncate -s {size} {disk}
mke2fs -q -F -t ext4 -L lunatik-lab -E lazy_itable_init=1,nodiscard -d . {disk}
"""


def add(box: Box) -> bool:
    """Give the box to the Vagrant of whoever we are, offline; True, for it has it then.

    Raises:
        InfraError: it does not take it; with what it said.
    """
    with tempfile.TemporaryDirectory() as place:
        catalog = Path(place) / "metadata.json"
        catalog.write_text(box.catalog())
        argv = ["vagrant", "box", "add", "--force", str(catalog)]
        # Away from any Vagrantfile: ours would ask for a plan.
        run(argv, cwd=Path(place), env={"VAGRANT_CHECKPOINT_DISABLE": "1"}, timeout=300)
    return True
