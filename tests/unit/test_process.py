# SPDX-License-Identifier: GPL-2.0-only
"""Host programs: output, limits, and that nothing of the group lives on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from lab import process
from lab.errors import HostError, InfraError
from lab.process import ProgramFailed, ProgramTimeout, run


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 3
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not is_alive(pid)


def test_output_and_status() -> None:
    finished = run(["sh", "-c", "echo out; echo err >&2; exit 3"], check=False)
    assert (finished.status, finished.stdout, finished.stderr) == (3, "out\n", "err\n")
    assert finished.command == "sh -c 'echo out; echo err >&2; exit 3'"


def test_failure_shows_the_tail() -> None:
    with pytest.raises(ProgramFailed) as caught:
        run(["sh", "-c", "seq 100 >&2; exit 7"])
    assert "status 7" in caught.value.what
    assert caught.value.what.endswith("\n99\n100")
    assert "\n80\n" not in caught.value.what
    assert caught.value.finished.status == 7


def test_death_by_signal_is_named() -> None:
    with pytest.raises(ProgramFailed, match="ended by SIGKILL"):
        run(["sh", "-c", "kill -9 $$"])


def test_lines_of_both_streams_and_the_last_without_newline() -> None:
    lines: list[str] = []
    run(["sh", "-c", "printf 'a\\r\\nb\\nc'; printf 'd\\n' >&2"], on_line=lines.append)
    assert sorted(lines) == ["a", "b", "c", "d"]


def test_log_gets_all(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("before\n")
    run(["sh", "-c", "echo out; sleep 0.1; echo err >&2"], log=log)
    assert log.read_text() == "before\nout\nerr\n"


def test_without_its_log_nothing_is_started(tmp_path: Path) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(FileNotFoundError):
        run(["touch", str(tmp_path / "ran")], log=tmp_path / "no/log")
    time.sleep(0.2)
    assert not (tmp_path / "ran").exists()
    assert signal.getsignal(signal.SIGTERM) == handler


def test_input_larger_than_a_pipe() -> None:
    data = b"x" * 1_000_000
    assert run(["cat"], input=data).stdout == data.decode()
    assert run(["head", "-c", "3"], input=data).stdout == "xxx"


def test_no_input_is_an_end_of_file() -> None:
    assert run(["cat"], timeout=5).stdout == ""


def test_environment_and_directory(tmp_path: Path) -> None:
    finished = run(["sh", "-c", "pwd; echo $WORD"], cwd=tmp_path, env={"WORD": "hi"})
    assert finished.stdout == f"{tmp_path}\nhi\n"


def test_a_variable_can_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORD", "hi")
    env = {"WORD": None, "OTHER": None, "THIRD": "3"}
    assert run(["sh", "-c", "echo ${WORD-none} $THIRD"], env=env).stdout == "none 3\n"


def test_undecodable_output() -> None:
    assert run(["printf", "\\377x"]).stdout == "\ufffdx"


def test_missing_program_names_its_package() -> None:
    with pytest.raises(HostError) as caught:
        run(["pahole", "--version"], env={"PATH": "/nonexistent"})
    assert "`pahole` is not installed" in str(caught.value)
    assert "package dwarves" in str(caught.value)
    assert caught.value.exit_status == 3


def test_missing_program_without_package() -> None:
    with pytest.raises(HostError, match="`no-such-program` is not installed"):
        run(["no-such-program"])


def test_missing_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(HostError, match="interpreter is missing"):
        run([script])


def test_a_file_that_may_not_be_run(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(HostError, match="cannot be started: Permission denied"):
        run([tmp_path / "script"])


def test_a_missing_program_of_a_programs_is_its_own_affair() -> None:
    assert run(["sh", "-c", "exec no-such-program"], check=False).status == 127


def test_a_program_ends_with_a_lab_that_is_killed(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    code = f"""
from lab.process import run
run(["sh", "-c", "echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 60"])
"""
    lab = subprocess.Popen([sys.executable, "-c", code])
    deadline = time.monotonic() + 50
    while not pid.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    lab.kill()
    lab.wait()
    assert gone(int(pid.read_text()))


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="directory that is gone"):
        run(["true"], cwd=tmp_path / "gone")


def test_full_disk_is_the_hosts_fault() -> None:
    with pytest.raises(HostError, match="no space left on the disk"):
        run(["sh", "-c", "echo 'cc1: No space left on device' >&2; exit 1"])


def test_time_limit_ends_the_group(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    with pytest.raises(ProgramTimeout, match=r"did not end within 0\.5 s") as caught:
        run(["sh", "-c", f"echo hi; sleep 60 & echo $! > {pid}; wait"], timeout=0.5)
    assert time.monotonic() - began < 30
    assert caught.value.finished.stdout == "hi\n"
    assert gone(int(pid.read_text()))


def test_program_that_ignores_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE", 0.3)
    began = time.monotonic()
    with pytest.raises(ProgramTimeout):
        run(["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"], timeout=0.3)
    assert time.monotonic() - began < 30


def test_output_closed_early_still_waits_and_still_has_a_limit() -> None:
    assert run(["sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 5"], check=False).status == 5
    with pytest.raises(ProgramTimeout):
        run(["sh", "-c", "exec >&- 2>&-; sleep 60"], timeout=0.3)


def test_daemon_that_holds_the_pipe_does_not_hold_us(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()
    finished = run(["sh", "-c", f"sleep 60 & echo $! > {pid}; echo done"])
    assert finished.stdout == "done\n"
    assert time.monotonic() - began < 30
    assert gone(int(pid.read_text()))


def test_error_in_the_callback_ends_the_group() -> None:
    pids: list[int] = []

    def fail(line: str) -> None:
        pids.append(int(line))
        raise ValueError

    with pytest.raises(ValueError):
        run(["sh", "-c", "echo $$; sleep 60"], on_line=fail)
    assert gone(pids[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_ends_the_group(tmp_path: Path, number: int) -> None:
    pid = tmp_path / "pid"
    code = f"""
import signal, sys
from lab.process import run
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
run(["sh", "-c", "echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 60"])
"""
    lab = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    # A busy host takes long to start an interpreter; nothing else ends within a minute.
    deadline = time.monotonic() + 50
    while not pid.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(lab.pid, number)
    assert lab.wait(30) != 0
    assert gone(int(pid.read_text()))


def test_interrupt_while_a_program_starts_is_kept_until_it_can_be_ended(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    started = process.subprocess.Popen
    handler = signal.getsignal(signal.SIGINT)

    def interrupted(*args: Any, **words: Any) -> Any:
        child = started(*args, **words)
        while not pid.exists():
            time.sleep(0.02)
        signal.raise_signal(signal.SIGINT)
        return child

    monkeypatch.setattr(process.subprocess, "Popen", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(["sh", "-c", f"echo $$ > {pid}.new; mv {pid}.new {pid}; sleep 60"])
    assert gone(int(pid.read_text()))
    assert signal.getsignal(signal.SIGINT) is handler
