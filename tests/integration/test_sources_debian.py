# SPDX-License-Identifier: GPL-2.0-only
"""Debian's linux-source packages through the real apt, from an archive on loopback."""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab import lockfile
from lab.errors import HostError, LabError, UserError
from lab.manifest import KernelSpec
from lab.manifest import read as read_manifest
from lab.sources import apt
from lab.sources.fetch import fetch
from lab.sources.update import update
from lab.store import Store

pytestmark = pytest.mark.skipif(shutil.which("apt-get") is None, reason="the host has no apt")

MAKEFILE = "VERSION = 6\nPATCHLEVEL = 12\nSUBLEVEL = {sublevel}\nEXTRAVERSION =\n"

MANIFEST = """\
default_kernel: "6.12"
default_image: i
kernels:
  "6.12":
    source: {{debian: {package}, suite: bookworm-security}}
flavours:
  default: {{fragments: []}}
images:
  i: {{recipe: i.yaml}}
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves files with ranges; breaks off the first answers that give a .deb."""

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Archive)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        found = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(found[1]) if found else 0
        if path.suffix == ".deb":
            server.starts.append(start)
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.send_header("Last-Modified", self.date_time_string(int(path.stat().st_mtime)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        end = len(data)
        if path.suffix == ".deb" and server.breaks:
            end = start + server.breaks.pop(0)
            self.close_connection = True
        self.wfile.write(data[start:end])

    def log_message(self, *_: object) -> None:
        pass


class Archive(ThreadingHTTPServer):
    """A Debian archive with one suite."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(Handler, directory=str(root)))
        self.root = root
        self.starts: list[int] = []
        self.breaks: list[int] = []

    @property
    def line(self) -> str:
        uri = f"http://127.0.0.1:{self.server_address[1]}/"
        return f"deb [trusted=yes] {uri} bookworm-security main\n"

    def publish(self, *sublevels: int) -> None:
        """Have exactly these versions, each with a tree of its own."""
        stanzas = []
        for sublevel in sublevels:
            deb = self.root / f"linux-source-6.12_6.12.{sublevel}-1_all.deb"
            if not deb.exists():
                make_deb(deb, sublevel)
            data = deb.read_bytes()
            stanzas.append(
                f"Package: linux-source-6.12\nVersion: 6.12.{sublevel}-1\nArchitecture: all\n"
                f"Filename: {deb.name}\nSize: {len(data)}\n"
                f"SHA256: {hashlib.sha256(data).hexdigest()}\nDescription: source\n"
            )
        architecture = subprocess.run(
            ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
        ).stdout.strip()
        suite = self.root / "dists" / "bookworm-security"
        index = suite / "main" / f"binary-{architecture}" / "Packages.gz"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_bytes(gzip.compress("\n".join(stanzas).encode(), mtime=0))
        name, data = index.relative_to(suite), index.read_bytes()
        plain = gzip.decompress(data)
        (suite / "Release").write_text(
            f"Suite: bookworm-security\nCodename: bookworm-security\nComponents: main\n"
            f"Architectures: {architecture} all\nDate: Mon, 02 Nov 2026 10:00:00 UTC\nSHA256:\n"
            f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}\n"
            f" {hashlib.sha256(plain).hexdigest()} {len(plain)} {name.with_suffix('')}\n"
        )


def make_deb(deb: Path, sublevel: int) -> None:
    root = deb.parent / "build" / str(sublevel)
    tree = root / "linux-source-6.12"
    (tree / "scripts").mkdir(parents=True)
    for name in ("Kconfig", "Kbuild", "scripts/Kbuild.include"):
        (tree / name).write_text(f"# {name}\n")
    (tree / "Makefile").write_text(MAKEFILE.format(sublevel=sublevel))
    # Something that does not compress, so that there is a middle to break off in.
    (tree / "noise").write_bytes(hashlib.shake_256(bytes([sublevel])).digest(1_000_000))
    package = root / "package"
    (package / "usr" / "src").mkdir(parents=True)
    (package / "DEBIAN").mkdir()
    (package / "DEBIAN" / "control").write_text(
        f"Package: linux-source-6.12\nVersion: 6.12.{sublevel}-1\nArchitecture: all\n"
        "Maintainer: A <a@b.invalid>\nDescription: source\n"
    )
    tarball = package / "usr" / "src" / "linux-source-6.12.tar.xz"
    subprocess.run(["tar", "-C", root, "-cJf", tarball, tree.name], check=True)
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", package, deb], check=True,
                   capture_output=True)  # fmt: skip


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    root = tmp_path / "archive"
    root.mkdir()
    with Archive(root) as archive:
        archive.publish(116, 117)
        monkeypatch.setattr(apt, "source_line", lambda _: archive.line)
        monkeypatch.setenv("http_proxy", "")
        thread = threading.Thread(target=archive.serve_forever, args=(0.05,))
        thread.start()
        yield archive
        archive.shutdown()
        thread.join()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "lab.lock"


@pytest.fixture
def spec(tmp_path: Path) -> KernelSpec:
    return kernel(tmp_path)


def kernel(tmp_path: Path, package: str = "linux-source-6.12") -> KernelSpec:
    (tmp_path / "lab.yaml").write_text(MANIFEST.format(package=package))
    return read_manifest(root=tmp_path).kernel("6.12")


def nothing_half_made(store: Store) -> bool:
    return not list((store.root / "artifacts").glob("*/*")) and not [
        path for path in (store.root / "tmp").iterdir() if path.is_dir()
    ]


def test_newest_is_locked_fetched_and_unpacked(
    archive: Archive, store: Store, lock: Path, spec: KernelSpec
) -> None:
    tree = fetch("6.12", spec, lock=lock, store=store)
    assert tree.version == "6.12.117" and not tree.user
    assert (tree.path / "noise").stat().st_size == 1_000_000
    locked = lockfile.read(lock).entries["kernels", "6.12"]
    assert locked.version == "6.12.117-1"
    deb = archive.root / "linux-source-6.12_6.12.117-1_all.deb"
    assert locked.sha256 == hashlib.sha256(deb.read_bytes()).hexdigest()
    assert not list((store.root / "hot" / "apt").rglob("*.deb")), "a .deb that nobody needs"


def test_fetched_once(archive: Archive, store: Store, lock: Path, spec: KernelSpec) -> None:
    first = fetch("6.12", spec, lock=lock, store=store)
    archive.publish(118)
    again = fetch("6.12", spec, lock=lock, store=Store(store.root))
    assert again == first and len(archive.starts) == 1


def test_goes_on_where_a_download_broke(
    archive: Archive, store: Store, lock: Path, spec: KernelSpec
) -> None:
    archive.breaks = [400_000, 300_000]
    assert fetch("6.12", spec, lock=lock, store=store).version == "6.12.117"
    assert archive.starts[0] == 0 and archive.starts[1] > 0


def test_goes_on_in_the_next_run(
    archive: Archive, store: Store, lock: Path, spec: KernelSpec
) -> None:
    archive.breaks = [100_000] * 50
    with pytest.raises(HostError):
        fetch("6.12", spec, lock=lock, store=store)
    assert nothing_half_made(store)
    archive.breaks, archive.starts = [], []
    assert fetch("6.12", spec, lock=lock, store=store).version == "6.12.117"
    assert archive.starts[0] >= 100_000


def test_a_locked_version_that_is_gone(
    archive: Archive, store: Store, lock: Path, spec: KernelSpec
) -> None:
    update([], manifest=read_manifest(root=lock.parent), lock=lock, store=store)
    archive.publish(118, 119)
    with pytest.raises(HostError) as caught:
        fetch("6.12", spec, lock=lock, store=store)
    error = str(caught.value)
    assert caught.value.exit_status == 3
    assert "no longer has linux-source-6.12 6.12.117-1" in error
    assert "it has 6.12.119-1, 6.12.118-1" in error
    assert "`lab kernel update 6.12`" in error
    assert nothing_half_made(store)


def test_update_moves_the_lock(
    archive: Archive, store: Store, lock: Path, spec: KernelSpec
) -> None:
    manifest = read_manifest(root=lock.parent)
    (first,) = update(["6.12"], manifest=manifest, lock=lock, store=store)
    assert str(first) == "kernels 6.12: nothing -> 6.12.117-1"
    archive.publish(117, 118)
    (moved,) = update(["6.12"], manifest=manifest, lock=lock, store=store)
    assert str(moved) == "kernels 6.12: 6.12.117-1 -> 6.12.118-1"
    assert update([], manifest=manifest, lock=lock, store=store) == []
    assert fetch("6.12", spec, lock=lock, store=store).version == "6.12.118"


def test_another_sha256(archive: Archive, store: Store, lock: Path, spec: KernelSpec) -> None:
    locked = lockfile.Locked(
        request={"debian": "linux-source-6.12", "suite": "bookworm-security"},
        version="6.12.117-1",
        file="x.deb",
        sha256="0" * 64,
    )
    lockfile.pin(lock, "kernels", "6.12", locked)
    with pytest.raises(UserError, match=r"lab\.lock wants 0000") as caught:
        fetch("6.12", spec, lock=lock, store=store)
    assert caught.value.exit_status == 2
    assert nothing_half_made(store)


def test_a_package_that_the_suite_never_had(
    archive: Archive, store: Store, lock: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"has no package linux-source-6\.99"):
        fetch("6.12", kernel(tmp_path, "linux-source-6.99"), lock=lock, store=store)


def test_a_suite_that_is_not_there(
    archive: Archive, store: Store, lock: Path, spec: KernelSpec
) -> None:
    shutil.rmtree(archive.root / "dists")
    with pytest.raises(LabError, match="bookworm-security cannot be read") as caught:
        fetch("6.12", spec, lock=lock, store=store)
    assert caught.value.exit_status == 3


def test_the_hosts_own_apt_is_not_touched(
    archive: Archive, store: Store, lock: Path, spec: KernelSpec
) -> None:
    lists = Path("/var/lib/apt/lists")
    before = sorted((path.name, path.stat().st_mtime_ns) for path in lists.iterdir())
    fetch("6.12", spec, lock=lock, store=store)
    assert sorted((path.name, path.stat().st_mtime_ns) for path in lists.iterdir()) == before
