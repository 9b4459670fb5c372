# SPDX-License-Identifier: GPL-2.0-only
"""The store: whole or not there, built once, collected with care."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import store as store_module
from lab.errors import HostError, UserError
from lab.store import Store, key, remove_tree, tree_size

INPUTS = {"tree": "abc", "options": ["x", 1, True, None]}
DAY = 86400.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


def one_file(content: str = "hello") -> Callable[[Path], None]:
    def build(directory: Path) -> None:
        (directory / "sub").mkdir()
        (directory / "sub" / "file").write_text(content)
        (directory / "link").symlink_to("sub/file")

    return build


def never(_: Path) -> None:
    raise AssertionError("this must not be built again")


def leftovers(root: Path) -> list[str]:
    return [path.name for path in (root / "tmp").iterdir() if path.name != ".sweeper"]


def age(root: Path, seconds: float) -> None:
    """Make everything look unused for so long."""
    then = time.time() - seconds
    for path in (*root.glob("artifacts/*/*/seal.json"), *root.glob("hot/*/*")):
        os.utime(path, (then, then))


def test_key_is_canonical() -> None:
    assert key({"a": 1, "b": [2]}) == key({"b": (2,), "a": 1})
    assert key({"a": 1}) != key({"a": "1"})
    assert len(key({})) == 20


def test_default_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert store_module.default_root() == Path("/one")
    monkeypatch.delenv("LAB_CACHE")
    assert store_module.default_root() == Path("/two/lunatik-lab")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/three")
    assert store_module.default_root() == Path("/three/.cache/lunatik-lab")


@pytest.mark.parametrize("name", ["my disk", "a:b", "a\tb"])
def test_make_would_not_build_there(tmp_path: Path, name: str) -> None:
    place = tmp_path / name / "store"
    with pytest.raises(HostError, match="with a blank or a colon in it; set LAB_CACHE") as caught:
        Store(place)
    assert caught.value.file == place
    assert not place.parent.exists()
    place.mkdir(parents=True)
    (tmp_path / "link").symlink_to(place)
    with pytest.raises(HostError, match="with a blank or a colon in it"):
        Store(tmp_path / "link")


def test_made_once(root: Path) -> None:
    made = Store(root).make("thing", INPUTS, one_file())
    again = Store(root).make("thing", INPUTS, never)
    assert made == again
    assert (again.path / "sub" / "file").read_text() == "hello"
    assert again.inputs == {**INPUTS}
    assert Store(root).find("thing", made.key) == made
    assert leftovers(root) == []


def test_other_inputs_are_another_artifact(root: Path) -> None:
    store = Store(root)
    first = store.make("thing", {"n": 1}, one_file("1"))
    second = store.make("thing", {"n": 2}, one_file("2"))
    assert first.path != second.path
    assert store.get("thing", {"n": 3}) is None


def damage_shorten(path: Path) -> None:
    (path / "sub" / "file").write_text("hell")


def damage_remove(path: Path) -> None:
    (path / "sub" / "file").unlink()


def damage_touch(path: Path) -> None:
    (path / "sub" / "file").write_text("HELLO")


def damage_link(path: Path) -> None:
    (path / "link").unlink()
    (path / "link").symlink_to("elsewhere")


def damage_seal(path: Path) -> None:
    (path.parent / "seal.json").write_text("{")


@pytest.mark.parametrize(
    "damage", [damage_shorten, damage_remove, damage_touch, damage_link, damage_seal]
)
def test_torn_is_noticed_and_made_again(root: Path, damage: Callable[[Path], None]) -> None:
    path = Store(root).make("thing", INPUTS, one_file()).path
    damage(path)
    store = Store(root)
    assert store.get("thing", INPUTS) is None
    again = store.make("thing", INPUTS, one_file())
    assert (again.path / "sub" / "file").read_text() == "hello"
    assert (again.path / "link").readlink() == Path("sub/file")
    assert leftovers(root) == []


def test_verify_hashes(root: Path) -> None:
    path = Store(root).make("thing", INPUTS, one_file()).path / "sub" / "file"
    before = path.stat()
    path.write_text("jello")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    store = Store(root)
    assert store.get("thing", INPUTS) is not None
    torn = store.verify()
    assert len(torn) == 1
    assert "sub/file has other content" in torn[0]


def test_what_is_torn_is_taken_away_and_made_again(root: Path) -> None:
    store = Store(root)
    path = store.make("thing", INPUTS, one_file()).path / "sub" / "file"
    assert not store.discard_if_torn("thing", key(INPUTS))
    assert path.read_text() == "hello"
    before = path.stat()
    path.write_text("jello")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.discard_if_torn("thing", key(INPUTS))
    assert not path.exists()
    assert store.get("thing", INPUTS) is None
    store.make("thing", INPUTS, one_file())
    assert path.read_text() == "hello"
    assert leftovers(root) == []


@pytest.mark.parametrize("error", [UserError("bad"), KeyboardInterrupt(), SystemExit(143)])
def test_failed_build_leaves_nothing(root: Path, error: BaseException) -> None:
    store = Store(root)

    def build(directory: Path) -> None:
        (directory / "half").write_text("x")
        raise error

    with pytest.raises(type(error)):
        store.make("thing", INPUTS, build)
    assert leftovers(root) == []
    assert store.get("thing", INPUTS) is None
    store.make("thing", INPUTS, one_file())


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_is_the_hosts_fault(root: Path, number: int) -> None:
    def build(directory: Path) -> None:
        raise OSError(number, os.strerror(number), str(directory / "big"))

    store = Store(root)
    with pytest.raises(HostError) as caught:
        store.make("thing", INPUTS, build)
    assert "no space left on the disk of the store" in str(caught.value)
    assert "LAB_CACHE" in str(caught.value)
    assert caught.value.exit_status == 3
    assert leftovers(root) == []


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_stores_place(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"cannot be made: .*LAB_CACHE"):
        Store(tmp_path / "file" / below)


def test_failure_on_a_full_disk_is_the_disks(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "FULL", 1 << 60)

    def build(_: Path) -> None:
        raise UserError("cc1: error writing to x.o")

    with pytest.raises(HostError, match="error writing"):
        Store(root).make("thing", INPUTS, build)


def test_unwritable_directories_are_removed(root: Path) -> None:
    def build(directory: Path) -> None:
        (directory / "ro").mkdir()
        (directory / "ro" / "file").write_text("x")
        (directory / "ro").chmod(0o500)
        raise UserError("bad")

    with pytest.raises(UserError):
        Store(root).make("thing", INPUTS, build)
    assert leftovers(root) == []


# Two processes


def child(root: Path, code: str) -> subprocess.Popen[str]:
    source = f"""
    import sys, time, os, signal
    from pathlib import Path
    from lab.store import Store
    store = Store(Path({str(root)!r}))
    def say(word):
        print(word, flush=True)
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source) + textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def children() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


BUILD_SLOWLY = """
    def build(path):
        say("building")
        time.sleep({seconds})
        (path / "file").write_text(str(os.getpid()))
    print(store.make("thing", {{"a": 1}}, build).path.joinpath("file").read_text())
"""


def test_two_at_once_build_once(root: Path, children: list[subprocess.Popen[str]]) -> None:
    code = BUILD_SLOWLY.format(seconds=2)
    children += [child(root, code), child(root, code)]
    outputs = [process.communicate(timeout=20) for process in children]
    words = "".join(out for out, _ in outputs).split()
    assert words.count("building") == 1
    assert len({word for word in words if word.isdigit()}) == 1
    waited = [err for _, err in outputs if err]
    assert len(waited) == 1
    assert "waiting for thing" in waited[0]
    assert "held by process" in waited[0]


def test_who_waits_for_oneself_is_told_nothing(
    root: Path, children: list[subprocess.Popen[str]]
) -> None:
    """Sixteen machines that want one snapshot, which one of their threads makes."""
    code = """
    from threading import Thread
    def build(path):
        time.sleep(2)
    threads = [Thread(target=store.make, args=("thing", {"a": 1}, build)) for _ in range(3)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """
    children.append(child(root, code))
    assert children[0].communicate(timeout=20)[1] == ""


def test_waiting_can_be_interrupted(root: Path, children: list[subprocess.Popen[str]]) -> None:
    children.append(child(root, BUILD_SLOWLY.format(seconds=60)))
    said(children[0], "building")
    children.append(child(root, "say('here')\n" + textwrap.dedent(BUILD_SLOWLY.format(seconds=0))))
    said(children[1], "here")
    time.sleep(0.5)
    children[1].send_signal(signal.SIGINT)
    _, err = children[1].communicate(timeout=5)
    assert "KeyboardInterrupt" in err
    assert children[0].poll() is None


def test_sigkill_leaves_what_the_next_start_sweeps(
    root: Path, children: list[subprocess.Popen[str]]
) -> None:
    children.append(child(root, BUILD_SLOWLY.format(seconds=60)))
    said(children[0], "building")
    Store(root)
    assert len(leftovers(root)) == 1  # a living owner's stays
    children[0].kill()
    children[0].communicate()
    Store(root)
    assert leftovers(root) == []
    Store(root).make("thing", {"a": 1}, one_file())


# Working directories


def test_hot_keeps_its_content_and_is_exclusive(
    root: Path, children: list[subprocess.Popen[str]]
) -> None:
    store = Store(root)
    with store.hot("build", "6.12") as path:
        (path / "vmlinux.o").write_text("x")
        code = "with store.hot('build', '6.12') as path:\n    say((path / 'vmlinux.o').read_text())"
        children.append(child(root, code))
        time.sleep(1)
        assert children[0].poll() is None
    assert children[0].communicate(timeout=10)[0] == "x\n"


def test_hot_survives_failure(root: Path) -> None:
    store = Store(root)
    with pytest.raises(KeyboardInterrupt), store.hot("build", "x") as path:
        (path / "half.o").write_text("x")
        raise KeyboardInterrupt
    with store.hot("build", "x") as path:
        assert (path / "half.o").exists()


def test_full_disk_in_a_working_directory(root: Path) -> None:
    with pytest.raises(HostError, match="no space left"), Store(root).hot("build", "x"):
        raise OSError(errno.ENOSPC, "No space left on device")


# Facts


def test_facts(root: Path) -> None:
    store = Store(root)
    assert store.recall("kvm") is None
    store.remember("kvm", {"works": False})
    assert Store(root).recall("kvm") == {"works": False}
    (root / "facts" / "kvm.json").write_text("{torn")
    assert store.recall("kvm") is None


# Collecting garbage


def test_gc_takes_the_old_only(root: Path) -> None:
    Store(root).make("thing", {"n": 1}, one_file())
    with Store(root).hot("build", "old"):
        pass
    age(root, 20 * DAY)
    store = Store(root)
    new = store.make("thing", {"n": 2}, one_file())
    removed = {(thing.kind, thing.name) for thing in store.gc(older_than=14 * DAY) if thing.removed}
    assert removed == {("thing", key({"n": 1})), ("hot/build", "old")}
    assert Store(root).get("thing", {"n": 1}) is None
    assert Store(root).find("thing", new.key) is not None
    assert leftovers(root) == []


def test_gc_dry_run_takes_nothing(root: Path) -> None:
    Store(root).make("thing", INPUTS, one_file())
    age(root, 20 * DAY)
    things = Store(root).gc(older_than=DAY, dry_run=True)
    assert [thing.removed for thing in things] == [True]
    assert Store(root).get("thing", INPUTS) is not None


def test_gc_never_takes_what_another_process_uses(
    root: Path, children: list[subprocess.Popen[str]]
) -> None:
    Store(root).make("thing", {"a": 1}, one_file())
    code = "artifact = store.get('thing', {'a': 1})\nsay('using')\ntime.sleep(60)"
    children.append(child(root, code))
    said(children[0], "using")
    age(root, 20 * DAY)
    assert [(t.used, t.removed) for t in Store(root).gc(older_than=DAY)] == [(True, False)]
    children[0].kill()
    children[0].communicate()
    assert [(t.used, t.removed) for t in Store(root).gc(older_than=DAY)] == [(False, True)]


def test_gc_dry_run_spares_what_is_used(root: Path) -> None:
    store = Store(root)
    store.make("thing", INPUTS, one_file())
    age(root, 20 * DAY)
    assert [thing.removed for thing in store.gc(older_than=DAY, dry_run=True)] == [False]


def test_gc_never_takes_a_working_directory_in_use(root: Path) -> None:
    store = Store(root)
    with store.hot("build", "x") as path:
        age(root, 20 * DAY)
        assert [thing.removed for thing in Store(root).gc(older_than=DAY)] == [False]
        assert path.exists()


def test_gc_down_to_a_size_takes_the_longest_unused(root: Path) -> None:
    for number in range(3):
        Store(root).make("thing", {"n": number}, one_file("x" * 100_000))
        then = time.time() - (10 - number) * 2 * 3600
        os.utime(root / "artifacts" / "thing" / key({"n": number}) / "seal.json", (then, then))
    things = Store(root).gc(older_than=14 * DAY, keep_bytes=250_000)
    assert [(t.name, t.removed) for t in things] == [
        (key({"n": 0}), True),
        (key({"n": 1}), False),
        (key({"n": 2}), False),
    ]


def test_gc_spares_the_last_hour(root: Path) -> None:
    Store(root).make("thing", INPUTS, one_file())
    assert [thing.removed for thing in Store(root).gc(older_than=DAY, keep_bytes=0)] == [False]


def test_use_renews(root: Path) -> None:
    Store(root).make("thing", INPUTS, one_file())
    age(root, 20 * DAY)
    assert Store(root).get("thing", INPUTS) is not None
    assert [thing.removed for thing in Store(root).gc(older_than=DAY)] == [False]


def test_gc_takes_facts_that_nobody_asks_for(root: Path) -> None:
    store = Store(root)
    for name in ("asked", "forgotten"):
        store.remember(name, 1)
        os.utime(root / "facts" / f"{name}.json", (1, 1))
    assert store.recall("asked") == 1
    store.gc(older_than=DAY, dry_run=True)
    assert store.recall("forgotten") == 1
    os.utime(root / "facts" / "forgotten.json", (1, 1))
    store.gc(older_than=DAY)
    assert [path.name for path in (root / "facts").iterdir()] == ["asked.json"]


def test_gc_takes_the_locks_of_what_is_gone(root: Path) -> None:
    store = Store(root)
    store.make("thing", {"n": 1}, one_file())
    store.make("thing", {"n": 2}, one_file())
    gone = root / "artifacts" / "thing" / key({"n": 2})
    remove_tree(gone)
    with Store(root).hot("build", "x"):
        for lock in (root / "locks").glob("*.lock"):
            os.utime(lock, (1, 1))
        with store._lock("held", "something"):
            os.utime(root / "locks" / "held.lock", (1, 1))
            Store(root).gc(older_than=14 * DAY)
    names = {path.name for path in (root / "locks").glob("*.lock")}
    assert names == {f"thing-{key({'n': 1})}.lock", "hot-build-x.lock", "held.lock"}


def test_size_counts_hard_links_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 50_000)
    single = tree_size(tmp_path)
    os.link(tmp_path / "a", tmp_path / "b")
    assert tree_size(tmp_path) == single
