# SPDX-License-Identifier: GPL-2.0-only
"""Artifacts under content keys.

An artifact is a directory that came whole into being: it is made in ``tmp/``,
sealed (what is in it, with sizes, times and hashes), and renamed into place.
A key is built once; who asks for it meanwhile waits.  What a crash left in
``tmp/`` is swept at the next start; an artifact that no longer fits its seal
is made again.

    <root>/artifacts/<kind>/<key>/{seal.json,content/}
    <root>/hot/<kind>/<name>/     long-lived working directories
    <root>/locks/                 one lock, and who holds it, per key and name
    <root>/facts/<name>.json      small things worth remembering
    <root>/tmp/                   what is being made, or taken away
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, TypeAlias

from filelock import FileLock, Timeout

from lab import seal
from lab.errors import HostError, InfraError, LabError
from lab.paths import expand
from lab.progress import note, seconds, size

Json: TypeAlias = "bool | int | float | str | Sequence[Json] | Mapping[str, Json] | None"

FULL = 4 << 20
"""With fewer bytes free than this, a failed build is taken to have filled the disk."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

ELSEWHERE = "set LAB_CACHE to a directory of your own"

UNFIT = re.compile(r"[\s:]")
"""The kernel's Makefile refuses to build where one of these is in a path."""

RECENT = 3600.0
"""Seconds after its last use in which ``gc`` takes nothing for its size alone."""

LOCK_POLL = 0.1
LOCK_PATIENCE = 1.0
"""Seconds of waiting for a lock before we say who holds it."""


@dataclass(frozen=True)
class Artifact:
    """A directory, complete and verified, and everything that went into it."""

    kind: str
    key: str
    path: Path
    inputs: Mapping[str, Json] = field(repr=False)


@dataclass(frozen=True)
class Stored:
    """One thing that takes up room, in the store or beside it.

    Attributes:
        kind, name: ``kernel`` and its key; ``hot/build`` and its name.
        size: bytes on disk.
        age: seconds since its last use.
        used: held by a living process just now.
        removed: whether this gc took it (or would have, when dry).
    """

    kind: str
    name: str
    path: Path
    size: int
    age: float
    used: bool
    removed: bool = False


def key(inputs: Mapping[str, Json]) -> str:
    """The content key: 20 hex digits over canonical JSON of every input."""
    return seal.digest(canonical(inputs))[:20]


def canonical(value: Json) -> bytes:
    """JSON with one spelling for one meaning."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def default_root() -> Path:
    """``$LAB_CACHE``, else ``$XDG_CACHE_HOME/lunatik-lab``, else ``~/.cache/lunatik-lab``."""
    if own := os.environ.get("LAB_CACHE"):
        return expand(own).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return expand(cache).absolute() / "lunatik-lab"


class Store:
    """The store below one directory; cheap to make, safe to share between processes."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = default_root() if root is None else root.absolute()
        self._known: dict[tuple[str, str], Artifact] = {}
        self._held: list[IO[bytes]] = []
        _refuse_unfit(self.root)
        with _disk_errors(self.root):
            self._make_places()
            self._sweep()

    def _make_places(self) -> None:
        try:
            for name in ("artifacts", "hot", "locks", "facts", "tmp"):
                (self.root / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in NO_SPACE:
                raise
            # Any other: a file in the way, a parent that is not ours, /proc.
            raise HostError(
                f"the store cannot be made: {error.strerror}", file=error.filename, right=ELSEWHERE
            ) from error

    # Artifacts

    def get(self, kind: str, inputs: Mapping[str, Json]) -> Artifact | None:
        """The artifact made from these inputs, or None if it is not there or is torn."""
        artifact = self.find(kind, key(inputs))
        if artifact is not None and canonical(artifact.inputs) != canonical(inputs):
            return None
        return artifact

    def find(self, kind: str, name: str) -> Artifact | None:
        """The artifact under a key, or None if it is not there or is torn.

        It is marked as used and stays safe from ``gc`` until this process ends.
        """
        known = self._known.get((kind, name))
        if known is not None:
            return known
        home = self.root / "artifacts" / kind / name
        holder = self._use(home)
        if holder is None:
            return None
        sealed = seal.read(home / "seal.json")
        wrong = "its seal cannot be read" if sealed is None else sealed.torn(home / "content")
        if sealed is None or wrong:
            note(f"{kind} {name} in the store is torn ({wrong})")
            holder.close()
            return None
        self._held.append(holder)
        artifact = Artifact(kind=kind, key=name, path=home / "content", inputs=sealed.inputs)
        self._known[kind, name] = artifact
        return artifact

    def make(
        self, kind: str, inputs: Mapping[str, Json], build: Callable[[Path], None]
    ) -> Artifact:
        """The artifact made from these inputs; built now if need be.

        Args:
            kind: what it is, a word.
            inputs: everything that decides what comes out.
            build: fills the empty directory that it is given.

        Raises:
            HostError: the disk is full, or the store cannot be written.
            Whatever ``build`` raises; nothing half-made stays.
        """
        found = self.get(kind, inputs)
        if found is not None:
            return found
        name = key(inputs)
        with self._lock(f"{kind}-{name}", f"{kind} {name}"):
            found = self.get(kind, inputs)
            if found is not None:
                return found
            self._build(kind, name, inputs, build)
        found = self.get(kind, inputs)
        if found is None:
            raise InfraError(f"{kind} {name} was made and is gone again from {self.root}")
        return found

    def _build(
        self, kind: str, name: str, inputs: Mapping[str, Json], build: Callable[[Path], None]
    ) -> None:
        home = self.root / "artifacts" / kind / name
        with self.scratch(f"{kind}-{name}") as new, _disk_errors(self.root):
            content = new / "content"
            content.mkdir()
            try:
                build(content)
            except LabError as error:
                if shutil.disk_usage(self.root).free < FULL:
                    raise _disk_full(self.root, str(error)) from error
                raise
            seal.write(new / "seal.json", content, inputs)
            home.parent.mkdir(parents=True, exist_ok=True)
            self._discard(home)
            # mkdtemp made it for us alone; the artifact may be read by all.
            (new / "content").chmod(0o755)
            new.rename(home)
            new.mkdir()  # scratch() takes it away again
        self._known.pop((kind, name), None)

    def verify(self) -> list[str]:
        """Hash every artifact; what is torn, one line each."""
        torn = []
        for home in sorted(self._homes()):
            wrong = _torn(home)
            if wrong:
                torn.append(f"{home.parent.name} {home.name}: {wrong}")
        return torn

    def discard_if_torn(self, kind: str, name: str) -> bool:
        """Hash an artifact that does not do; take it away if it is torn.

        Sizes and times, which `find` looks at, outlive a power cut that the content
        does not.

        Returns:
            Whether it was, and is made anew by who asks for it next.
        """
        home = self.root / "artifacts" / kind / name
        with self._lock(f"{kind}-{name}", f"{kind} {name}"):
            wrong = _torn(home)
            if wrong:
                note(f"{kind} {name} in the store is torn ({wrong})")
                with _disk_errors(self.root):
                    self._discard(home)
        self._known.pop((kind, name), None)
        return bool(wrong)

    # Working directories

    @contextmanager
    def hot(self, kind: str, name: str) -> Iterator[Path]:
        """A long-lived working directory, ours alone while the block runs.

        Its content survives failures and interrupts: whoever uses it must be
        able to go on from any state (as make is).
        """
        path = self.root / "hot" / kind / name
        with self._lock(f"hot-{kind}-{name}", f"working directory {kind}/{name}"):
            with _disk_errors(self.root):
                path.mkdir(parents=True, exist_ok=True)
                os.utime(path)
            with _disk_errors(self.root):
                yield path

    @contextmanager
    def scratch(self, prefix: str) -> Iterator[Path]:
        """A temporary directory on the store's disk, gone after the block or our death."""
        tmp = self.root / "tmp"
        with _disk_errors(self.root), _flock(tmp / ".sweeper"):
            outer = Path(tempfile.mkdtemp(prefix=f"{prefix}.", dir=tmp))
            owner = (outer / "owner").open("wb")
            fcntl.flock(owner, fcntl.LOCK_EX)
            inner = outer / "new"
            inner.mkdir()
        try:
            yield inner
        finally:
            remove_tree(outer)
            owner.close()

    def _sweep(self) -> None:
        """Take away what dead processes left in ``tmp/``."""
        tmp = self.root / "tmp"
        with _flock(tmp / ".sweeper"):
            dead = [path for path in tmp.iterdir() if path.is_dir() and not _is_owned(path)]
        for path in dead:
            remove_tree(path)

    def _discard(self, home: Path) -> None:
        if home.exists():
            with self.scratch("discard") as bin_:
                home.rename(bin_ / home.name)

    # Small facts

    def recall(self, name: str) -> Json:
        """What was remembered under a name; None if nothing (readable) was."""
        path = self.root / "facts" / f"{name}.json"
        try:
            value: Json = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return None
        with suppress(OSError):  # a store on a read-only disk still serves
            os.utime(path)  # gc goes by this
        return value

    def remember(self, name: str, value: Json) -> None:
        """Remember something small, such as what a probe has found."""
        path = self.root / "facts" / f"{name}.json"
        with _disk_errors(self.root):
            seal.publish(path, canonical(value))

    # Collecting garbage

    def stored(self) -> list[Stored]:
        """Everything that takes up room, the longest unused first."""
        now = time.time()
        things = [
            Stored(
                kind=home.parent.name,
                name=home.name,
                path=home,
                size=tree_size(home),
                age=now - _last_use(home / "seal.json"),
                used=is_flocked(home / "seal.json"),
            )
            for home in self._homes()
        ]
        things += [
            Stored(
                kind=f"hot/{path.parent.name}",
                name=path.name,
                path=path,
                size=tree_size(path),
                age=now - _last_use(path),
                used=is_flocked(self._lock_path(f"hot-{path.parent.name}-{path.name}")),
            )
            for path in self._hots()
        ]
        return sorted(things, key=lambda thing: -thing.age)

    def gc(
        self,
        *,
        older_than: float,
        keep_bytes: int | None = None,
        dry_run: bool = False,
        others: Sequence[Stored] = (),
        take_other: Callable[[Stored], bool] = lambda _: False,
    ) -> list[Stored]:
        """Take away what has not been used for long.

        Args:
            older_than: seconds since the last use.
            keep_bytes: beyond the age, go on (longest unused first) until no
                more than this is left.
            dry_run: only say what would go.
            others: what lies elsewhere and goes by the same rules.
            take_other: takes one of them away; whether it went.

        What a living process holds always stays; what was used within the last
        hour stays unless ``older_than`` is less than that.
        """
        things = sorted([*self.stored(), *others], key=lambda thing: -thing.age)
        total = sum(thing.size for thing in things)
        result = []
        for thing in things:
            old = thing.age > older_than or (keep_bytes is not None and total > keep_bytes)
            gone = old and not thing.used and thing.age > min(RECENT, older_than)
            if gone and not dry_run:
                gone = (take_other if thing in others else self._take_away)(thing)
            if gone:
                total -= thing.size
            result.append(replace(thing, removed=gone))
        if not dry_run:
            self._tidy(older_than)
        return result

    def _take_away(self, thing: Stored) -> bool:
        if thing.kind.startswith("hot/"):
            lock = FileLock(
                self._lock_path(f"hot-{thing.kind[4:]}-{thing.name}"), preserve_lock_file=True
            )
            try:
                with lock.acquire(timeout=0):
                    self._discard(thing.path)
            except Timeout:
                return False
            return True
        try:
            file = (thing.path / "seal.json").open("rb")
        except OSError:
            self._discard(thing.path)
            return True
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            self._discard(thing.path)
        return True

    def _tidy(self, older_than: float) -> None:
        """Take away facts that nobody asked for in so many seconds, and locks of what is gone."""
        then = time.time() - older_than
        for fact in (self.root / "facts").glob("*.json"):
            if _last_use(fact) < then:
                fact.unlink(missing_ok=True)
        kept = {self._lock_path(f"{home.parent.name}-{home.name}") for home in self._homes()}
        kept |= {self._lock_path(f"hot-{path.parent.name}-{path.name}") for path in self._hots()}
        for path in set((self.root / "locks").glob("*.lock")) - kept:
            if _last_use(path) < then:
                self._remove_lock(path)

    @staticmethod
    def _remove_lock(path: Path) -> None:
        # Who waits for it meanwhile sees that the file has no name any more, and
        # takes the one that has: filelock looks at st_nlink.
        lock = FileLock(path, preserve_lock_file=True)
        with suppress(Timeout), lock.acquire(timeout=0):
            path.with_suffix(".holder").unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    def _homes(self) -> Iterator[Path]:
        return (self.root / "artifacts").glob("*/*")

    def _hots(self) -> Iterator[Path]:
        return (self.root / "hot").glob("*/*")

    # Locks

    def _lock_path(self, name: str) -> Path:
        return self.root / "locks" / f"{name.replace('/', '-')}.lock"

    @contextmanager
    def _lock(self, name: str, what: str) -> Iterator[None]:
        """Hold the lock of a key or name; while waiting, say once who holds it."""
        path = self._lock_path(name)
        holder = path.with_suffix(".holder")
        lock = FileLock(path, preserve_lock_file=True)
        with _disk_errors(self.root):
            try:
                lock.acquire(timeout=LOCK_PATIENCE, poll_interval=LOCK_POLL)
            except Timeout:
                pid, told = _holder(holder)
                # That a thread of ours is at it is no news: it tells how far it is.
                if pid != os.getpid():
                    note(f"waiting for {what}, held by {told}")
                lock.acquire(poll_interval=LOCK_POLL)
        try:
            with _disk_errors(self.root):
                me: Json = {"pid": os.getpid(), "command": _own_command(), "since": time.time()}
                holder.write_bytes(canonical(me))
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def _use(self, home: Path) -> IO[bytes] | None:
        """Open an artifact's seal, shared-locked and stamped as used now."""
        path = home / "seal.json"
        try:
            file = path.open("rb")
        except OSError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH)
        # gc may have taken it between the two calls above.
        if not path.exists() or not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            file.close()
            return None
        with suppress(OSError):  # a store on a read-only disk still serves
            os.utime(path)
        return file


def _torn(home: Path) -> str | None:
    """What no longer fits an artifact's seal, hashes and all."""
    sealed = seal.read(home / "seal.json")
    if sealed is None:
        return "its seal cannot be read"
    return sealed.torn(home / "content", full=True)


def tree_size(path: Path) -> int:
    """Bytes on disk below a path; hard links once, what vanishes meanwhile not at all."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [path]
    while pending:
        try:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    found = entry.stat(follow_symlinks=False)
                    if (found.st_dev, found.st_ino) in seen:
                        continue
                    if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                        seen.add((found.st_dev, found.st_ino))
                    total += found.st_blocks * 512
                    if stat.S_ISDIR(found.st_mode):
                        pending.append(Path(entry.path))
        except OSError:
            continue
    return total


def remove_tree(path: Path) -> None:
    """Remove a directory, also where its own directories may not be written."""

    def again(function: Callable[[str], object], name: str, _: object) -> None:
        with suppress(OSError):
            Path(name).parent.chmod(0o700)
            if Path(name).is_dir() and not Path(name).is_symlink():
                Path(name).chmod(0o700)
                shutil.rmtree(name, ignore_errors=True)
            else:
                function(name)

    shutil.rmtree(path, onerror=again)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def is_flocked(path: Path) -> bool:
    """Whether a living process (ours too) holds a lock on the file."""
    try:
        file = path.open("rb")
    except OSError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _is_owned(path: Path) -> bool:
    return is_flocked(path / "owner")


@contextmanager
def _flock(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _holder(path: Path) -> tuple[int | None, str]:
    """Who has a lock: the process, where it is known, and the same for people."""
    try:
        me = json.loads(path.read_bytes())
        since = seconds(max(0.0, time.time() - me["since"]))
        return me["pid"], f"process {me['pid']} ({me['command']}) for {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return None, "another process"


def _own_command() -> str:
    words = Path("/proc/self/cmdline").read_bytes().decode(errors="replace").split("\0")
    return " ".join(words)[:200].strip()


def _refuse_unfit(root: Path) -> None:
    # make goes by the real path, too; pathlib's resolve() does not bear a loop of links.
    for path in (os.fspath(root), os.path.realpath(root)):
        if UNFIT.search(path):
            raise HostError(
                "the store cannot be here: no kernel can be built below a path with a blank"
                " or a colon in it",
                file=path,
                right=ELSEWHERE,
            )


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Say whose fault it is when the disk is full or may not be written."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise _disk_full(root, str(error)) from error
        if error.errno in (errno.EROFS, errno.EACCES) and str(error.filename or "").startswith(
            str(root)
        ):
            raise HostError(
                f"the store cannot be written: {error.strerror}",
                file=error.filename,
                right=ELSEWHERE,
            ) from error
        raise


def _disk_full(root: Path, detail: str) -> HostError:
    mount = root
    while not mount.is_mount():
        mount = mount.parent
    free = shutil.disk_usage(mount).free
    return HostError(
        f"no space left on the disk of the store: {size(free)} free on {mount} ({detail})",
        file=root,
        right="free some, see what `lab gc` can take, or set LAB_CACHE to another disk",
    )
