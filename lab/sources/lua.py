# SPDX-License-Identifier: GPL-2.0-only
"""Pristine Lua with its official test suite, out of a Python source distribution.

pip does the fetching, with the index, proxy, certificate and credentials that
it is configured with on this host.  But pip asks the build system of an sdist
for its metadata even when it only downloads, which would run code of the
sdist and need its compiler.  So it is shown a build system that answers this
one question and does nothing else.
"""

from __future__ import annotations

import shutil
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lab import lockfile, seal
from lab.errors import HostError, UserError
from lab.lockfile import Locked
from lab.manifest import LuaSpec
from lab.process import ProgramFailed, run
from lab.progress import note, progress
from lab.sources.verify import verify_sha256
from lab.store import Json, Store, key

KIND = "lua"
GROUP = "lua"

BUILD_SYSTEM = '''\
"""Answers pip's question for metadata, see lab/sources/lua.py."""
from pathlib import Path

def prepare_metadata_for_build_wheel(directory, config_settings=None):
    made = Path(directory) / "{name}-{version}.dist-info"
    made.mkdir()
    (made / "METADATA").write_text("Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n")
    return made.name

def get_requires_for_build_wheel(config_settings=None):
    return []

class __legacy__:
    prepare_metadata_for_build_wheel = staticmethod(prepare_metadata_for_build_wheel)
    get_requires_for_build_wheel = staticmethod(get_requires_for_build_wheel)
'''


@dataclass(frozen=True, kw_only=True)
class LuaSource:
    """Pristine Lua.

    Attributes:
        path: holds lua.h, lapi.c and the rest, and testes/; nobody writes there.
        version: "5.5.1", as lua.h says.
        key: content key.
    """

    path: Path
    version: str
    key: str


def fetch_lua(name: str, spec: LuaSpec, *, lock: Path, store: Store) -> LuaSource:
    """A Lua of the manifest, fetched, verified and unpacked if need be.

    Raises:
        UserError: the sdist differs from the lock, or has no such member.
        HostError: pip cannot fetch it.
    """
    locked = lockfile.read(lock).get(GROUP, name, request(spec))
    if locked is None:
        locked = ensure_pinned(name, spec, lock=lock, store=store)
    pinned = locked

    def build(into: Path) -> None:
        def unpack(sdist: Path) -> None:
            verify_sha256(
                sdist,
                wanted=pinned.sha256 or "",
                who="lab.lock",
                right="see what the package index of this host gives; "
                f"if that is right, take `{name}` out of lab.lock",
            )
            unpack_member(sdist, spec.member, into)

        _download(spec, store=store, then=unpack)

    artifact = store.make(KIND, inputs(spec, locked), build)
    return LuaSource(path=artifact.path, version=_version(artifact.path), key=artifact.key)


def lua_key(name: str, spec: LuaSpec, *, lock: Path, store: Store) -> str:
    """The key that ``fetch_lua`` will give, without fetching once it is pinned."""
    locked = lockfile.read(lock).get(GROUP, name, request(spec))
    if locked is None:
        locked = ensure_pinned(name, spec, lock=lock, store=store)
    return key(inputs(spec, locked))


def ensure_pinned(name: str, spec: LuaSpec, *, lock: Path, store: Store) -> Locked:
    """The pin of a Lua, made now from what the index gives if there is none."""
    found = lockfile.read(lock).get(GROUP, name, request(spec))
    if found is not None:
        return found
    made: list[Locked] = []

    def describe(sdist: Path) -> None:
        made.append(
            Locked(
                request=request(spec),
                version=spec.version,
                file=sdist.name,
                sha256=seal.digest_file(sdist),
            )
        )

    _download(spec, store=store, then=describe)
    lockfile.pin(lock, GROUP, name, made[0])
    note(f"{lock.name}: Lua {name} is now pinned to {made[0].file}")
    return made[0]


def request(spec: LuaSpec) -> dict[str, str]:
    """A Lua as lab.lock repeats it."""
    return {"pypi": spec.pypi, "version": spec.version, "member": spec.member}


def inputs(spec: LuaSpec, locked: Locked) -> dict[str, Json]:
    """What decides the content of the unpacked tree."""
    return {"sdist": locked.sha256, "member": spec.member}


def unpack_member(sdist: Path, member: str, into: Path) -> None:
    """Unpack one directory of an sdist, whose files stand in one top directory.

    Raises:
        UserError: it has no such member, or is damaged.
    """
    wanted = PurePosixPath(member).parts
    try:
        with tarfile.open(sdist) as archive:
            for entry in archive:
                parts = PurePosixPath(entry.name).parts
                if parts[1 : 1 + len(wanted)] != wanted or len(parts) <= 1 + len(wanted):
                    continue
                _extract(archive, entry, into.joinpath(*parts[1 + len(wanted) :]))
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UserError(f"cannot be unpacked: {error}", file=sdist) from None
    if not any(into.iterdir()):
        raise UserError(
            f"{sdist.name} has no directory `{member}`", right="see `member` in lab.yaml"
        )


def _extract(archive: tarfile.TarFile, entry: tarfile.TarInfo, target: Path) -> None:
    # tarfile's own filters came with 3.11.4, and Debian 12 has 3.11.2.
    if ".." in target.parts or not (entry.isreg() or entry.isdir()):
        raise tarfile.TarError(f"{entry.name} is neither a file nor a directory inside")
    if entry.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    content = archive.extractfile(entry)
    assert content is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        shutil.copyfileobj(content, file)


def _download(spec: LuaSpec, *, store: Store, then: Callable[[Path], None]) -> None:
    """Fetch the sdist into a directory that lives as long as ``then`` runs."""
    with store.scratch("sdist") as scratch, progress(f"download {spec.pypi} {spec.version}"):
        system = scratch / "build-system" / "setuptools"
        system.mkdir(parents=True)
        (system / "__init__.py").touch()
        text = BUILD_SYSTEM.format(name=spec.pypi, version=spec.version)
        (system / "build_meta.py").write_text(text)
        got = scratch / "got"
        try:
            run(
                (
                    *(sys.executable, "-m", "pip", "download", "--quiet"),
                    *("--no-deps", "--no-build-isolation", "--no-binary", spec.pypi),
                    *("--disable-pip-version-check", "--dest", got),
                    f"{spec.pypi}=={spec.version}",
                ),
                env={"PYTHONPATH": str(system.parent)},
                cwd=scratch,
            )
        except ProgramFailed as error:
            raise _explain(spec, error) from None
        sdists = [path for path in got.iterdir() if path.name.endswith((".tar.gz", ".zip"))]
        if len(sdists) != 1:
            raise HostError(f"pip gave no source distribution of {spec.pypi} {spec.version}")
        then(sdists[0])


def _explain(spec: LuaSpec, error: ProgramFailed) -> HostError | UserError:
    said = error.finished.stderr
    if "No module named pip" in said:
        return HostError(
            f"{sys.executable} has no pip",
            right="make the environment with ./run, or install python3-pip",
        )
    if "No matching distribution" in said and "from versions: none" not in said:
        return UserError(
            f"the package index has no {spec.pypi} {spec.version}:\n{error.finished.tail(3)}",
            right="see `lua` in lab.yaml",
        )
    return HostError(
        f"pip cannot fetch {spec.pypi} {spec.version}:\n{error.finished.tail(5)}",
        right="see that pip works on this host (its index, proxy and certificate)",
    )


def _version(path: Path) -> str:
    numbers = dict[str, str]()
    for line in (path / "lua.h").read_text(errors="replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[1].startswith("LUA_VERSION_"):
            numbers[words[1].removeprefix("LUA_VERSION_")] = words[2].strip('"()')
    if {"MAJOR_N", "MINOR_N", "RELEASE_N"} <= numbers.keys():  # from 5.5 on
        parts = [numbers[part] for part in ("MAJOR_N", "MINOR_N", "RELEASE_N")]
    else:
        parts = [numbers.get(part, "?") for part in ("MAJOR", "MINOR", "RELEASE")]
    return ".".join(parts)
