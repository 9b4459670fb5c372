# SPDX-License-Identifier: GPL-2.0-only
"""Builds the root file system of every guest: mmdebstrap, then erofs.

The packages are an artifact of their own, so that a change to the lab's own
files in the image takes seconds.

Rootless where the host allows (mmdebstrap picks a user namespace by itself).
All files in the image belong to root: in a guest there is nobody else, and so
the tree can be unpacked by any user.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import seal
from lab.errors import HostError, InfraError, UserError
from lab.image import recipe as recipes
from lab.image.recipe import Recipe
from lab.process import ProgramFailed, run
from lab.progress import Step, progress
from lab.sources import apt
from lab.store import Artifact, Json, Store, key, remove_tree

#: Changes with the way images are made, so that older ones are not used.
WAY = 1

#: Seconds for the whole of mmdebstrap; it takes 30.
BOOTSTRAP_TIMEOUT = 900.0

#: Where the guest's program goes, and what else must be there to mount on.
PROGRAM_DIRECTORY = "usr/lib/lab"
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")

#: With mmdebstrap's own settings goes the host's proxy, password and all.
PRIVATE = ("etc/apt/apt.conf.d/99mmdebstrap", "etc/apt/sources.list")

#: Of apt, about a suite that a mirror does not have.
NO_RELEASE = "does not have a Release file"

HOOKS = Path("/usr/share/mmdebstrap/hooks/merged-usr")


@dataclass(frozen=True, kw_only=True)
class Image:
    """A root file system.

    Attributes:
        name: as in the manifest.
        key: content key.
        root: erofs.
        packages: a text file, one `name version` a line.
    """

    name: str
    key: str
    root: Path
    packages: Path


def build(name: str, file: Path, store: Store) -> Image:
    """The image of a recipe, built now if the store has none.

    Args:
        name: as in the manifest.
        file: the recipe.
        store: where images are kept.

    Raises:
        UserError: the recipe is wrong, or names a package that is not there.
        HostError: a program is missing, the mirror is not reachable, the disk
            is full.
    """
    recipe = recipes.read(file)

    def make(path: Path) -> None:
        debian = store.make("debian", packages(recipe), lambda place: bootstrap(recipe, place))
        _make(recipe, debian.path, path)

    return _record(name, store.make("image", inputs(recipe), make))


def find(name: str, file: Path, store: Store) -> Image | None:
    """The image of a recipe if the store has it."""
    found = store.get("image", inputs(recipes.read(file)))
    return None if found is None else _record(name, found)


def packages(recipe: Recipe) -> dict[str, Json]:
    """Everything that decides what mmdebstrap makes.

    Versions of packages are not among it: they are the suite's of the day, and
    stand in `packages.txt`.  Nor are the reasons: a better comment is no other
    image.
    """
    return {
        "way": WAY,
        "suite": recipe.suite,
        "packages": sorted(recipe.packages),
        "exclude": list(recipe.exclude),
    }


def inputs(recipe: Recipe) -> dict[str, Json]:
    """Everything that decides what an image is."""
    return {
        "packages": packages(recipe),
        "program": files(recipe.resolve("program"), follow=True),
        "names": list(recipe.names),
        "power": list(recipe.power),
        "overlay": files(recipe.resolve("overlay")),
    }


def files(directory: Path, *, follow: bool = False) -> dict[str, Json]:
    """Content and mode of each file below a directory, and where each link leads.

    Args:
        follow: whether a link to a file counts as that file, which is what a compiler
            reads.  In a root file system links stay links: what they lead to is the
            guest's, and if the host has such a file, it is another.
    """
    found: dict[str, Json] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.is_symlink() and not (follow and path.is_file()):
            found[name] = ["link", str(path.readlink())]
        elif path.is_file():
            found[name] = [seal.digest_file(path), path.stat().st_mode & 0o777]
    return found


def _record(name: str, artifact: Artifact) -> Image:
    return Image(
        name=name,
        key=key(artifact.inputs),
        root=artifact.path / "root.erofs",
        packages=artifact.path / "packages.txt",
    )


def _make(recipe: Recipe, debian: Path, path: Path) -> None:
    tree = path / "tree"
    try:
        with progress("image", total=3) as step:
            step.update(0, detail="unpacking")
            tree.mkdir()
            # No device nodes and no owners, so that no rights are needed.
            run(
                [
                    "tar",
                    "--extract",
                    "--preserve-permissions",
                    "--no-same-owner",
                    "--exclude=./dev/*",
                    "--file",
                    debian / "root.tar",
                    "--directory",
                    tree,
                ]
            )
            step.update(1, detail="the lab's own files")
            _add_own(recipe, tree)
            step.update(2, detail="erofs")
            _pack(tree, path / "root.erofs")
            shutil.copyfile(debian / "packages.txt", path / "packages.txt")
    finally:
        remove_tree(tree)


def bootstrap(recipe: Recipe, path: Path) -> None:
    """Make root.tar and packages.txt, the packages of a recipe unpacked and set up."""
    argv: list[str | Path] = [
        "mmdebstrap",
        "--mode=auto",
        "--variant=essential",
        "--format=tar",
        "--skip=output/dev",
        f"--include={','.join(sorted(recipe.packages))}",
        '--aptopt=APT::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in recipe.exclude),
        *_proxies(),
        # Names and versions of all that is in it, apt's own way of listing
        # being absent from this variant.
        '--customize-hook=dpkg-query --admindir="$1/var/lib/dpkg" --show >&2',
    ]
    if HOOKS.is_dir() and recipe.suite == "bookworm":
        argv.append(f"--hook-dir={HOOKS}")
    sources = "".join(apt.source_line(suite) for suite in _suites(recipe.suite))
    with progress("packages of the image") as step:
        try:
            done = run(
                [*argv, recipe.suite, path / "root.tar", "-"],
                input=sources,
                timeout=BOOTSTRAP_TIMEOUT,
                on_line=lambda line: _show(step, line),
            )
        except ProgramFailed as error:
            raise _explain(recipe, error) from error
    listed = _versions(done.stderr.splitlines())
    (path / "packages.txt").write_text("".join(f"{line}\n" for line in listed))


def _show(step: Step, line: str) -> None:
    if line.startswith("I: "):
        step.update(detail=line.removeprefix("I: ")[:70])


def _suites(suite: str) -> Iterator[str]:
    """The suite and its security updates (rolling ones have none)."""
    yield suite
    if suite not in ("sid", "unstable", "experimental") and "-" not in suite:
        yield f"{suite}-security"


def _proxies() -> Iterator[str]:
    for line in apt.acquire_settings().splitlines():
        if "proxy" in line.lower() and not line.endswith('"";'):
            yield f"--aptopt={line}"


def _versions(lines: list[str]) -> list[str]:
    return sorted(
        line.replace("\t", " ")
        for line in lines
        if line.count("\t") == 1 and not line.startswith(("I: ", "W: ", "E: "))
    )


def _explain(recipe: Recipe, error: ProgramFailed) -> UserError | HostError | InfraError:
    text = error.finished.stderr + error.finished.stdout
    for name in recipe.packages:
        if (
            f"Unable to locate package {name}\n" in text
            or f"Package '{name}' has no installation candidate" in text
        ):
            return recipe.where("packages", name).error(
                f"the suite {recipe.suite} has no package `{name}`"
            )
    wrong = [line for line in text.splitlines() if line.startswith(("E: ", "Err:"))]
    said = "\n".join(wrong[-6:]) or error.finished.tail(6)
    if "unable to pick chroot mode" in text:
        return HostError(
            "an ordinary user makes images in a user namespace, which this host does not allow",
            right="install uidmap, have a line in /etc/subuid, or be root",
        )
    if "No space left on device" in text:
        return HostError(f"no space left on the disk while the image was made:\n{said}")
    away = "Could not resolve" in text or "Could not connect" in text
    if not away and _has_no_release(recipe.suite, text):
        return recipe.where("suite").error(
            f"the Debian mirror has no suite `{recipe.suite}`",
            right="bookworm, say; or a mirror that has it",
        )
    # Also where it is the security updates that a mirror has not.
    if away or "Failed to fetch" in text or NO_RELEASE in text:
        return HostError(f"the Debian mirror cannot be reached:\n{said}")
    return InfraError(f"mmdebstrap failed:\n{said}")


def _has_no_release(suite: str, text: str) -> bool:
    """Whether apt says that the mirror lacks a suite, and not only a file of it."""
    release = rf"[ /]{re.escape(suite)}[ /](In)?Release"
    return bool(re.search(rf"{release}' {NO_RELEASE}|{release}\s+404\b", text))


def _add_own(recipe: Recipe, tree: Path) -> None:
    for name in MOUNT_POINTS:
        (tree / name).mkdir(exist_ok=True)
    for name in PRIVATE:
        (tree / name).unlink(missing_ok=True)
    shutil.copytree(recipe.resolve("overlay"), tree, dirs_exist_ok=True, symlinks=True)
    place = tree / PROGRAM_DIRECTORY
    place.mkdir(parents=True, exist_ok=True)
    compile_program(recipe, place / "guest")
    for name in recipe.names:
        (place / name).symlink_to("guest")
    for name in recipe.power:
        link = tree / "usr/sbin" / name
        link.unlink(missing_ok=True)
        link.symlink_to(f"/{PROGRAM_DIRECTORY}/guest")


def compile_program(recipe: Recipe, target: Path) -> None:
    """Compile the lab's own program of the guest, static."""
    flags = ("-O2", "-Wall", "-Wextra", "-Werror", "-static", "-s")
    sources = sorted(recipe.resolve("program").glob("*.c"))
    run(["gcc", *flags, "-o", target, *sources])


def _pack(tree: Path, target: Path) -> None:
    # Not compressed: a guest's first read of each page would be unpacked under
    # emulation, and the store's disk is not what is short.  The fixed time and
    # UUID make equal trees equal images.
    run(
        [
            "mkfs.erofs",
            "--quiet",
            "--all-root",
            "-T0",
            "-U00000000-0000-0000-0000-000000000000",
            target,
            tree,
        ]
    )
