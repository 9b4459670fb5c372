# SPDX-License-Identifier: GPL-2.0-only
"""./run on hosts that lack this and that; python3, apt-get and nox are played by scripts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

RUN = Path(__file__).resolve().parents[2] / "run"
TOOLS = (
    *("cat", "cp", "dirname", "env", "flock", "mkdir", "mktemp", "mv"),
    *("readlink", "rm", "sh", "sleep", "touch", "tr"),
)

PYTHON3 = """\
#!/bin/sh
# Plays python3: what -c asks is known, -m venv makes an environment of our own.
case "$*" in
*ensurepip*) [ -e "$WORLD/has-venv" ] ;;
*version_info*) [ ! -e "$WORLD/old-python" ] ;;
*sys.version*) cat "$WORLD/python-version" ;;
"-m venv .venv")
	echo venv >>"$WORLD/calls"
	mkdir -p .venv/bin
	if [ -e "$WORLD/interrupted" ]; then
		rm "$WORLD/interrupted"
		kill -KILL $PPID
		exit 1
	fi
	touch .venv/pyvenv.cfg
	cp "$WORLD/venv-python" .venv/bin/python ;;
*) echo "python3: unexpected: $*" >&2; exit 99 ;;
esac
"""

VENV_PYTHON = """\
#!/bin/sh
echo "$*" >>"$WORLD/calls"
case "$*" in
"-m pip "*) [ ! -e "$WORLD/no-network" ] ;;
"-m nox "*) . "$WORLD/nox" ;;
esac
"""

APT_GET = """\
#!/bin/sh
echo "apt-get $*" >>"$WORLD/calls"
case "$*" in
*install*) touch "$WORLD/has-venv" ;;
esac
"""


@dataclass
class World:
    """A host: a checkout with nothing but ``run``, and programs that say what was asked."""

    directory: Path

    @property
    def env(self) -> dict[str, str]:
        return {"PATH": str(self.directory / "bin"), "WORLD": str(self.directory)}

    def program(self, name: str, text: str) -> None:
        path = self.directory / "bin" / name
        path.unlink(missing_ok=True)  # never write through a link to the host's own
        path.write_text(text)
        path.chmod(0o755)

    def nox(self, text: str) -> None:
        (self.directory / "nox").write_text(text)

    def calls(self) -> list[str]:
        file = self.directory / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def run(
        self, *args: str, cwd: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        script = self.directory / "checkout" / "run"
        return subprocess.run(
            ["sh", script, *args],
            env={**self.env, **env},
            cwd=cwd or self.directory,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )


@pytest.fixture(params=["dash", "bash"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    shell = shutil.which(request.param)
    if shell is None:
        pytest.skip(f"{request.param} is not installed")
    host = World(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "checkout").mkdir()
    shutil.copy(RUN, tmp_path / "checkout" / "run")
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / "bin" / tool).symlink_to(found)
    (tmp_path / "bin" / "sh").unlink()
    (tmp_path / "bin" / "sh").symlink_to(shell)
    host.program("id", "#!/bin/sh\ncat $WORLD/uid\n")
    host.program("python3", PYTHON3)
    (tmp_path / "uid").write_text("1000\n")
    (tmp_path / "venv-python").write_text(VENV_PYTHON)
    (tmp_path / "venv-python").chmod(0o755)
    (tmp_path / "python-version").write_text("3.11\n")
    (tmp_path / "has-venv").touch()
    host.nox("exit 0\n")
    yield host


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "which session?"),
        (("e2",), "there is no session `e2'"),
        (("e2e", "-k", "smoke"), "put -- before `-k'"),
    ],
)
def test_wrong_use(world: World, args: tuple[str, ...], words: str) -> None:
    finished = world.run(*args)
    assert finished.returncode == 2
    assert words in finished.stderr
    assert "usage: ./run SESSION" in finished.stderr
    assert world.calls() == []


def test_help(world: World) -> None:
    finished = world.run("--help")
    assert finished.returncode == 0
    assert "usage: ./run SESSION" in finished.stdout


def test_arguments_reach_nox(world: World) -> None:
    finished = world.run("e2e", "--", "-k", "two words")
    assert finished.returncode == 0, finished.stderr
    assert world.calls()[-1] == "-m nox --session e2e -- -k two words"


def test_the_environment_is_made_once(world: World) -> None:
    assert world.run("tests").returncode == 0
    assert world.run("tests").returncode == 0
    assert [call.split()[0] for call in world.calls()] == ["venv", "-m", "-m", "-m"]
    assert "nox==" in world.calls()[1]


def test_another_python_makes_it_anew(world: World) -> None:
    world.run("tests")
    (world.directory / "python-version").write_text("3.13\n")
    world.run("tests")
    assert world.calls().count("venv") == 2


def test_what_is_no_environment_is_left_alone(world: World) -> None:
    mine = world.directory / "checkout" / ".venv" / "precious"
    mine.parent.mkdir()
    mine.touch()
    assert world.run("tests").returncode == 2
    assert mine.exists()


def test_what_an_interrupt_left_half_made_is_made_again(world: World) -> None:
    (world.directory / "interrupted").touch()
    assert world.run("tests").returncode == -signal.SIGKILL
    assert not (world.directory / "checkout" / ".venv" / "pyvenv.cfg").exists()
    finished = world.run("tests")
    assert finished.returncode == 0, finished.stderr
    assert world.run("tests").returncode == 0
    assert world.calls().count("venv") == 2


def test_what_an_interrupt_left_half_removed_is_made_again(world: World) -> None:
    assert world.run("tests").returncode == 0
    real = (world.directory / "bin" / "rm").resolve()
    world.program(
        "rm",
        f"""#!/bin/sh
for place; do
	if [ -e "$place/pyvenv.cfg" ] && [ -e "$WORLD/interrupted" ]; then
		{real} "$place/pyvenv.cfg" "$place/.run" "$WORLD/interrupted"
		kill -KILL $PPID
		exit 1
	fi
done
exec {real} "$@"
""",
    )
    (world.directory / "interrupted").touch()
    (world.directory / "python-version").write_text("3.13\n")
    assert world.run("tests").returncode != 0
    assert not (world.directory / "interrupted").exists()
    finished = world.run("tests")
    assert finished.returncode == 0, finished.stderr
    left = (world.directory / "checkout" / ".lab").iterdir()
    assert [path.name for path in left] == ["venv.lock"]


def test_an_environment_behind_a_link_is_only_unlinked(world: World) -> None:
    mine = world.directory / "mine"
    mine.mkdir()
    (mine / "pyvenv.cfg").touch()
    (world.directory / "checkout" / ".venv").symlink_to(mine)
    assert world.run("tests").returncode == 0
    assert [path.name for path in mine.iterdir()] == ["pyvenv.cfg"]


def lab_is_a_file(world: World) -> None:
    (world.directory / "checkout" / ".lab").touch()


def no_right_to_write(world: World) -> None:
    # Played, as root may write everywhere.
    world.program("mkdir", "#!/bin/sh\necho mkdir: Read-only file system >&2\nexit 1\n")


def the_lock_cannot_be_opened(world: World) -> None:
    (world.directory / "checkout" / ".lab" / "venv.lock").mkdir(parents=True)


def no_locks_on_this_disk(world: World) -> None:
    world.program("flock", "#!/bin/sh\necho flock: No locks available >&2\nexit 66\n")


def no_room_for_the_status(world: World) -> None:
    # What cannot be written to; not /dev/full, which can be read without end.
    world.program("mktemp", '#!/bin/sh\necho "$WORLD/full/status"\n')


def no_room_in_the_environment(world: World) -> None:
    world.program("touch", "#!/bin/sh\necho touch: No space left on device >&2\nexit 1\n")


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lab_is_a_file, ".lab"),
        (no_right_to_write, "checkout: mkdir: Read-only file system"),
        (the_lock_cannot_be_opened, "checkout/.lab/venv.lock cannot be opened"),
        (no_locks_on_this_disk, "No locks available"),
        (no_room_for_the_status, "full/status cannot be written; set TMPDIR"),
        (no_room_in_the_environment, "No space left"),
        (None, "/nowhere"),
    ],
)
def test_faults_of_the_host(
    world: World, fault: Callable[[World], None] | None, words: str
) -> None:
    if fault:
        fault(world)
    finished = world.run("e2e", TMPDIR=str(world.directory) if fault else "/nowhere")
    assert finished.returncode == 3
    said = [line for line in finished.stderr.splitlines() if line != "run: making .venv"]
    assert len(said) == 1
    assert said[0].startswith("run: ") and words in said[0]


@pytest.mark.parametrize(
    ("nox", "status"),
    [
        ("exit 0", 0),
        ("exit 1", 1),
        ('echo 0 >"$LAB_STATUS_FILE"; exit 0', 0),
        ('echo 0 >"$LAB_STATUS_FILE"; exit 1', 1),
        ('echo 1 >"$LAB_STATUS_FILE"; exit 1', 1),
        ('echo 2 >"$LAB_STATUS_FILE"; exit 1', 2),
        ('echo 3 >"$LAB_STATUS_FILE"; exit 1', 3),
        ('echo 4 >"$LAB_STATUS_FILE"; exit 1', 4),
        ('echo 3 >"$LAB_STATUS_FILE"; exit 0', 3),
        ('echo garbage >"$LAB_STATUS_FILE"; exit 1', 1),
        ('rm "$LAB_STATUS_FILE"; exit 1', 1),
    ],
)
def test_the_labs_status_goes_out(world: World, nox: str, status: int) -> None:
    world.nox(nox)
    assert world.run("e2e").returncode == status


def test_paths_are_the_users(world: World) -> None:
    world.nox('echo "$LAB_CALLED_FROM" >"$WORLD/from"; pwd >"$WORLD/in"')
    elsewhere = world.directory / "else where"
    elsewhere.mkdir()
    assert world.run("e2e", cwd=elsewhere).returncode == 0
    assert (world.directory / "from").read_text() == f"{elsewhere}\n"
    assert (world.directory / "in").read_text() == f"{world.directory}/checkout\n"


def test_no_venv_no_rights(world: World) -> None:
    (world.directory / "has-venv").unlink()
    world.program("apt-get", APT_GET)
    finished = world.run("e2e")
    assert finished.returncode == 3
    assert "run: sudo apt-get install -y python3-venv" in finished.stderr
    assert world.calls() == []


def test_no_venv_no_apt(world: World) -> None:
    (world.directory / "has-venv").unlink()
    finished = world.run("e2e")
    assert finished.returncode == 3
    assert "apt-get; install it" in finished.stderr


def test_no_venv_as_root(world: World) -> None:
    (world.directory / "has-venv").unlink()
    (world.directory / "uid").write_text("0\n")
    world.program("apt-get", APT_GET)
    assert world.run("e2e").returncode == 0
    assert world.calls()[:2] == [
        "apt-get -q -o DPkg::Lock::Timeout=600 update",
        "apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends python3-venv",
    ]


def test_no_venv_with_sudo(world: World) -> None:
    (world.directory / "has-venv").unlink()
    world.program("apt-get", APT_GET)
    world.program("sudo", '#!/bin/sh\n[ "$1" = -n ] && shift\nif [ "$1" != true ]; then "$@"; fi\n')
    assert world.run("e2e").returncode == 0
    assert "apt-get -q -o DPkg::Lock::Timeout=600 update" in world.calls()


def test_apt_fails(world: World) -> None:
    (world.directory / "has-venv").unlink()
    (world.directory / "uid").write_text("0\n")
    world.program("apt-get", "#!/bin/sh\nexit 100\n")
    finished = world.run("e2e")
    assert finished.returncode == 3
    assert "apt-get failed" in finished.stderr


def test_no_python(world: World) -> None:
    (world.directory / "bin" / "python3").unlink()
    assert world.run("e2e").returncode == 3


def test_old_python(world: World) -> None:
    (world.directory / "old-python").touch()
    finished = world.run("e2e")
    assert finished.returncode == 3
    assert "older than 3.11" in finished.stderr


def test_no_network(world: World) -> None:
    (world.directory / "no-network").touch()
    finished = world.run("e2e")
    assert finished.returncode == 3
    assert "pip could not install nox" in finished.stderr
    (world.directory / "no-network").unlink()
    assert world.run("e2e").returncode == 0  # and what was half-made does not stay


@contextlib.contextmanager
def begun(world: World) -> Iterator[subprocess.Popen[bytes]]:
    """./run, in a process group of its own, once its session has said that it started."""
    script = world.directory / "checkout" / "run"
    process = subprocess.Popen(["sh", script, "e2e"], env=world.env, start_new_session=True)
    try:
        deadline = time.monotonic() + 10
        while not (world.directory / "started").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield process
    finally:
        # A session that did not hear would go on for ever.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_run_alone_ends_the_session(world: World, number: signal.Signals) -> None:
    world.nox(
        f'trap \'sleep 0.3; echo cleaned >"$WORLD/cleaned"; '
        f'echo {128 + number} >"$LAB_STATUS_FILE"; exit 1\' {number.name[3:]}\n'
        'touch "$WORLD/started"\nwhile :; do sleep 0.1; done\n'
    )
    with begun(world) as process:
        process.send_signal(number)
        assert process.wait(10) == 128 + number
    assert (world.directory / "cleaned").exists()


@pytest.mark.parametrize("given", ["", "</dev/null", "<&-"])
def test_the_session_reads_what_we_are_given(world: World, given: str) -> None:
    world.nox('cat >"$WORLD/read"')
    script = world.directory / "checkout" / "run"
    subprocess.run(
        ["sh", "-c", f"exec sh {script} e2e {given}"],
        env=world.env, input="words", text=True, timeout=20, check=True,
    )  # fmt: skip
    assert (world.directory / "read").read_text() == ("" if given else "words")


def test_interrupt_waits_for_the_session_and_hands_on_its_status(world: World) -> None:
    world.nox(
        'trap \'sleep 0.3; echo cleaned >"$WORLD/cleaned"; '
        'echo 130 >"$LAB_STATUS_FILE"; exit 130\' INT\n'
        'touch "$WORLD/started"\nwhile :; do sleep 0.1; done\n'
    )
    with begun(world) as process:
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(10) == 130
    assert (world.directory / "cleaned").exists()
