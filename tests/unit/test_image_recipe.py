# SPDX-License-Identifier: GPL-2.0-only
"""Image recipes, good and bad, and what an image's key depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import HostError, InfraError, UserError
from lab.image import build, recipe
from lab.manifest import ROOT
from lab.process import Finished, ProgramFailed
from lab.store import key

GOOD = """\
suite: bookworm
overlay: overlay
program: guest
names: [init, run]
packages:
  kmod: loads modules
  iproute2: addresses
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "overlay" / "etc").mkdir(parents=True)
    (tmp_path / "overlay" / "etc" / "hosts").write_text("127.0.0.1 localhost\n")
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest" / "guest.c").write_text("int main(void) { return 0; }\n")
    (tmp_path / "image.yaml").write_text(GOOD)
    return tmp_path / "image.yaml"


def image_key(file: Path) -> str:
    return key(build.inputs(recipe.read(file)))


def packages_key(file: Path) -> str:
    return key(build.packages(recipe.read(file)))


def test_shipped_recipe_is_good() -> None:
    shipped = recipe.read(ROOT / "vm-images" / "debian.yaml")
    assert {"qemu-guest-agent", "bpftool", "nftables", "tcpdump"} <= set(shipped.packages)
    assert all(len(reason) > 5 for reason in shipped.packages.values())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("names:", "nmaes:", r"image.yaml:4: the key `nmaes` is unknown here"),
        ("  kmod: loads modules", "  kmod:", r"image.yaml:6: "),
        ("suite: bookworm", "suite: 12", r"image.yaml:1: "),
        ("  kmod: loads", "  Kmod!: loads", r"image.yaml:6: .*Kmod!"),
        ("overlay: overlay", "overlay: nowhere", r"image.yaml:2: there is no `.*/nowhere`"),
        ("program: guest", "program: gone", r"image.yaml:3: there is no `.*/gone`"),
    ],
)
def test_mistakes(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(GOOD.replace(old, new))
    with pytest.raises(UserError, match=message):
        recipe.read(file)


def test_a_better_reason_is_no_other_image(file: Path) -> None:
    before = image_key(file)
    file.write_text(GOOD.replace("addresses", "addresses and routes"))
    assert image_key(file) == before


def test_the_labs_own_files_do_not_make_the_packages_again(file: Path) -> None:
    whole, packages = image_key(file), packages_key(file)
    (file.parent / "overlay" / "etc" / "hosts").write_text("::1 localhost\n")
    second = image_key(file)
    (file.parent / "guest" / "guest.c").write_text("int main(void) { return 1; }\n")
    assert len({whole, second, image_key(file)}) == 3
    assert packages_key(file) == packages


def test_a_link_is_a_link_and_not_what_the_host_has_there(file: Path, tmp_path: Path) -> None:
    there = tmp_path / "target"
    there.write_text("one\n")
    link = file.parent / "overlay" / "etc" / "link"
    link.symlink_to(there)
    before = image_key(file)
    there.write_text("two\n")
    assert image_key(file) == before
    there.unlink()
    assert image_key(file) == before  # it leads nowhere, and is in the image all the same
    link.unlink()
    link.symlink_to("elsewhere")
    assert image_key(file) != before
    link.unlink()
    assert image_key(file) != before


def test_what_the_compiler_reads_behind_a_link_counts(file: Path, tmp_path: Path) -> None:
    there = tmp_path / "more.c"
    there.write_text("int one;\n")
    (file.parent / "guest" / "more.c").symlink_to(there)
    before = image_key(file)
    there.write_text("int two;\n")
    assert image_key(file) != before


def test_another_package_is_another_image(file: Path) -> None:
    before = packages_key(file), image_key(file)
    file.write_text(GOOD + "  tcpdump: captures\n")
    assert packages_key(file) != before[0]
    assert image_key(file) != before[1]


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        (
            "E: Unable to locate package kmod\n",
            UserError,
            r"image.yaml:6: the suite bookworm has no package `kmod`",
        ),
        ("Err:1 http://x\n  Could not resolve 'x'\n", HostError, "mirror cannot be reached"),
        (
            "Err:2 http://x/debian bookworm Release\n  404  Not Found [IP: 192.0.2.1 80]\n"
            "E: The repository 'http://x/debian bookworm Release' does not have a Release file.\n",
            UserError,
            r"image.yaml:1: the Debian mirror has no suite `bookworm`",
        ),
        (
            "E: Failed to fetch http://x/debian/dists/bookworm/InRelease  404  Not Found\n",
            UserError,
            r"image.yaml:1: the Debian mirror has no suite `bookworm`",
        ),
        (
            # Only the security updates are not there, and nobody named those.
            "E: The repository 'http://x/s bookworm-security Release' does not have a Release file."
            "\n",
            HostError,
            "mirror cannot be reached",
        ),
        (
            "E: Failed to fetch http://x/debian/pool/main/k/kmod_30.deb  404  Not Found\n",
            HostError,
            "mirror cannot be reached",
        ),
        (
            "Err:1 http://x bookworm InRelease\n  Could not connect to x:80\n"
            "E: The repository 'http://x bookworm Release' does not have a Release file.\n",
            HostError,
            "mirror cannot be reached",
        ),
        ("dpkg: No space left on device\n", HostError, "no space left"),
        (
            "E: unable to pick chroot mode automatically (use --mode for manual selection)\n",
            HostError,
            "install uidmap",
        ),
        ("E: something else\n", InfraError, "mmdebstrap failed:\nE: something else"),
    ],
)
def test_failures_of_mmdebstrap(file: Path, said: str, kind: type[Exception], message: str) -> None:
    finished = Finished(argv=("mmdebstrap",), status=1, stdout="", stderr=said, seconds=1)
    error = build._explain(recipe.read(file), ProgramFailed(finished))
    assert type(error) is kind
    with pytest.raises(kind, match=message):
        raise error


def test_security_updates_belong_to_stable_suites() -> None:
    assert list(build._suites("bookworm")) == ["bookworm", "bookworm-security"]
    assert list(build._suites("sid")) == ["sid"]
