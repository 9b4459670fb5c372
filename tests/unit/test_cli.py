# SPDX-License-Identifier: GPL-2.0-only
"""The command line: one message, the right exit status, no traceback."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from lab import cli
from lab.errors import HostError, InfraError, KernelError, UserError


class Command:
    """A command group with one command, ``do``."""

    def __init__(self, do: Callable[[], None]) -> None:
        self.do = do

    def register(self, app: typer.Typer) -> None:
        app.command("do")(self.do)


@pytest.fixture
def do(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], int]:
    def run(function: Callable[[], None]) -> int:
        monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, Command(function)))
        return cli.run(["do"])

    return run


Do = Callable[[Callable[[], None]], int]


@pytest.mark.parametrize(
    ("error", "status"), [(UserError, 2), (HostError, 3), (KernelError, 1), (InfraError, 4)]
)
def test_error_is_one_message_and_its_status(
    do: Do, capsys: pytest.CaptureFixture[str], error: type[UserError], status: int
) -> None:
    def function() -> None:
        raise error("it is wrong", file="lab.yaml", line=12, right="do it right")

    assert do(function) == status
    assert capsys.readouterr().err == "lab: lab.yaml:12: it is wrong; do it right\n"


def test_own_fault_is_4_and_tells_how_to_see_more(
    do: Do, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def function() -> None:
        raise ZeroDivisionError("oops")

    assert do(function) == 4
    err = capsys.readouterr().err
    assert "a fault of the lab itself: ZeroDivisionError: oops" in err
    assert "Traceback" not in err
    monkeypatch.setenv("LAB_DEBUG", "1")
    assert do(function) == 4
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "status", "words"),
    [
        (errno.EROFS, 3, "/there/file: Read-only file system; "),
        (errno.EACCES, 3, "/there/file: Permission denied; "),
        (errno.ENOSPC, 3, "`lab gc`"),
        (errno.ENAMETOOLONG, 2, "/there/file: File name too long; "),
        (errno.EISDIR, 4, "a fault of the lab itself"),
    ],
)
def test_what_the_system_refuses_is_told_apart(
    do: Do, capsys: pytest.CaptureFixture[str], number: int, status: int, words: str
) -> None:
    def function() -> None:
        raise OSError(number, os.strerror(number), "/there/file")

    assert do(function) == status
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1


def test_a_directory_that_is_gone(
    do: Do, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert do(lambda: print(Path.cwd())) == 2
    assert "is gone" in capsys.readouterr().err


def test_good_command(do: Do) -> None:
    assert do(lambda: None) == 0


def test_a_commands_own_status(do: Do) -> None:
    def function() -> None:
        raise typer.Exit(125)

    assert do(function) == 125


@pytest.mark.parametrize("argv", [["no-such"], ["gc", "--no-such"], ["gc", "--older-than", "x"]])
def test_wrong_use_is_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(argv) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["test", "-n", "²"], "-n"),
        (["kselftest", "net", "--limit", "nan", "--kernel", "no-such"], "--limit"),
        (["kselftest", "net", "--limit", "inf", "--kernel", "no-such"], "--limit"),
        (["exec", "--timeout", "nan", "no-such", "true"], "--timeout"),
        (["exec", "--timeout", "-1", "no-such", "true"], "--timeout"),
    ],
)
def test_numbers_that_are_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
    option: str,
) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    assert cli.run(argv) == 2
    assert option in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    "argv",
    [
        ["kernel", "config", ""],
        ["up", "--kernel", ""],
        ["test", "--kernel", ""],
        ["image", "build", ""],
        ["kselftest", "", "--kernel", "no-such"],
        ["kselftest", "net,", "--kernel", "no-such"],
        ["kselftest", "../..", "--kernel", "no-such"],
    ],
)
def test_an_empty_word_is_neither_what_is_usual_nor_where_we_stand(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    argv: list[str],
) -> None:
    monkeypatch.setenv("LAB_CACHE", str(tmp_path))
    monkeypatch.setattr("lab.vm.argv.program", lambda: "qemu-system-x86_64")
    monkeypatch.setattr("lab.vm.accel.choose", lambda *_: SimpleNamespace(name="tcg"))
    assert cli.run(argv) == 2
    message = capsys.readouterr().err
    assert "``" in message or "no directory of self" in message
    assert str(Path.cwd()) not in message


def test_words_that_no_json_can_hold(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["test", "-k", os.fsdecode(b"a\xff")]) == 2
    assert capsys.readouterr().err.startswith("lab: `a\\xff` is not UTF-8 text; ")


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--help"]) == 0
    assert "doctor" in capsys.readouterr().out
    assert cli.run(["--version"]) == 0


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["--help"])
    listing = capsys.readouterr().out.split("Commands:")[1]
    names = [line.split()[0] for line in listing.splitlines() if line.startswith("  ")]
    for name in [name for name in names if name.strip()]:
        if not listing.count(f"\n  {name} "):
            continue  # the second line of a description
        assert cli.run([name, "--help"]) == 0, name
        assert "Usage: lab" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "usage"),
    [
        (["kernel", "build"], "[OPTIONS] [NAME|PATH]"),
        (["kernel", "update"], "[OPTIONS] [NAME]..."),
        (["image", "build"], "[OPTIONS] [NAME]"),
        (["kunit"], "[OPTIONS] [GLOB]"),
        (["up"], "[OPTIONS] [NODE]..."),
        (["down"], "[OPTIONS] [NODE]..."),
        (["test"], "[OPTIONS] [TEST | PYTEST'S OPTION]..."),
    ],
)
def test_usage_is_what_can_be_typed(
    argv: list[str], usage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*argv, "--help"]) == 0
    first = capsys.readouterr().out.strip().splitlines()[0]
    assert first == f"Usage: lab {' '.join(argv)} {usage}"


def lab(
    *argv: str, env: dict[str, str] | None = None, code: str = ""
) -> subprocess.CompletedProcess[str]:
    source = f"from lab import cli\n{code}\ncli.main()"
    return subprocess.run(
        [sys.executable, "-c", source, *argv],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_status_file_is_written(tmp_path: Path) -> None:
    file = tmp_path / "status"
    done = lab("no-such", env={"LAB_STATUS_FILE": str(file)})
    assert done.returncode == 2
    assert file.read_text() == "2\n"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_signals_clean_up_and_keep_their_status(
    tmp_path: Path, number: signal.Signals, status: int
) -> None:
    code = f"""
import sys, time
from pathlib import Path
from lab import cli
class Slow:
    @staticmethod
    def register(app):
        @app.command("slow")
        def slow() -> None:
            try:
                Path({str(tmp_path)!r}, "started").touch()
                time.sleep(30)
            finally:
                Path({str(tmp_path)!r}, "cleaned").touch()
cli.COMMANDS = (*cli.COMMANDS, Slow)
sys.argv = ["lab", "slow"]
cli.main()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 10
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=10)
    assert process.returncode == status
    assert (tmp_path / "cleaned").exists()
    assert "Traceback" not in err


def test_only_a_second_interrupt_is_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM may come to us, to our group and by ./run, all for the same reason."""
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    ending = cli._Ending()
    with pytest.raises(KeyboardInterrupt):
        ending._end(signal.SIGTERM, None)
    ending._end(signal.SIGTERM, None)
    ending._end(signal.SIGHUP, None)
    assert ending.signal == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        ending._end(signal.SIGINT, None)


def test_reader_that_goes_away_is_no_fault(tmp_path: Path) -> None:
    code = "from lab import cli; cli.main()"
    done = subprocess.run(
        f"{sys.executable} -c '{code}' doctor --json 2>{tmp_path}/err | head -c 1",
        shell=True,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == b"["
    assert "Traceback" not in (tmp_path / "err").read_text()
    assert "fault" not in (tmp_path / "err").read_text()


def test_reader_that_goes_away_is_no_failed_test() -> None:
    source = "from lab import cli; cli.main()"
    with subprocess.Popen(
        [sys.executable, "-c", source, "doctor", "--json"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.close()
        assert process.wait(30) == 128 + signal.SIGPIPE


def test_manifest_option_reaches_the_manifest(
    tmp_path: Path, do: Do, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_MANIFEST", "")
    own = tmp_path / "own.yaml"
    own.write_text("suites: {mine: [x]}\n")
    seen = []

    def function() -> None:
        from lab import manifest

        seen.append(manifest.read().suite("mine"))

    monkeypatch.setattr(cli, "COMMANDS", (Command(function), *cli.COMMANDS))
    assert cli.run(["--manifest", str(own), "do"]) == 0
    assert seen == [("x",)]


def test_gc_shows_and_takes(tmp_path: Path) -> None:
    from lab.store import Store

    store = Store(tmp_path)
    store.make("thing", {"a": 1}, lambda _: None)
    seal = next(tmp_path.glob("artifacts/*/*/seal.json"))
    os.utime(seal, (1, 1))
    del store
    env = {"LAB_CACHE": str(tmp_path)}
    run = tmp_path / "results" / "20200101-000000"
    (run / "cells/c").mkdir(parents=True)
    for path in (run, run / "cells", run / "cells/c"):
        os.utime(path, (2, 2))
    gc = ("gc", "--results", str(run.parent))
    shown = lab(*gc, "--dry-run", env=env).stdout
    assert [line.split()[0] for line in shown.splitlines()[:2]] == ["thing", "results"]
    assert "would go" in shown
    assert seal.exists()
    assert lab(*gc, "--json", env=env).stdout.count('"removed": true') == 2
    assert not seal.exists()
    assert not run.exists()
    wrong = lab("gc", "--keep", "many", env=env)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "20G" in wrong.stderr


def test_gc_verify_tells_scripts_too(tmp_path: Path) -> None:
    from lab.store import Store

    store = Store(tmp_path)
    made = store.make("thing", {"a": 1}, lambda directory: (directory / "f").touch())
    env = {"LAB_CACHE": str(tmp_path)}
    whole = lab("gc", "--verify", "--json", env=env)
    assert (whole.returncode, whole.stdout) == (0, "[]\n")
    (made.path / "f").unlink()
    torn = lab("gc", "--verify", "--json", env=env)
    assert torn.returncode == 4
    assert made.key in torn.stdout


def test_a_plan_takes_no_names_of_machines() -> None:
    wrong = lab("up", "--plan", "node1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "--topology" in wrong.stderr


def test_starts_fast() -> None:
    """What every command pays: nothing heavy is imported before it is needed."""
    code = "import sys; from lab import cli; cli.build(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"pydantic", "pytest", "scapy", "paramiko", "fabric", "jinja2", "qemu"}
    assert not heavy & loaded
