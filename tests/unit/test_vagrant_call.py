# SPDX-License-Identifier: GPL-2.0-only
"""Calls of `vagrant`, against a fake one that hangs, crashes and talks rubbish."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from lab.errors import HostError, InfraError
from lab.process import Finished
from lab.provider.vagrant_call import Account, CallFailed, Vagrant, complaint, program, read_states

STATUS = """\
1795432000,,ui,info,Current machine states:
1795432000,node1,metadata,provider,libvirt
1795432000,node2,metadata,provider,libvirt
1795432000,node1,provider-name,libvirt
1795432000,node1,state,running
1795432000,node2,provider-name,libvirt
1795432000,node1,state-human-short,running
1795432000,node2,state,shutoff
1795432000,node2,state-human-short,shutoff
1795432000,node1,state-human-long,Running%!(VAGRANT_COMMA) it is
"""

FAILED = """\
1795432001,,ui,error,There is no machine 'node9'.\\nLook again.
1795432001,,error-exit,Vagrant::Errors::MachineNotFound,no 'node9'%!(VAGRANT_COMMA) it seems.
"""


def finished(stdout: str = "", stderr: str = "", status: int = 1) -> Finished:
    return Finished(argv=("vagrant",), status=status, stdout=stdout, stderr=stderr, seconds=1.0)


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `vagrant` that runs the shell script that a test writes into this file."""
    script = tmp_path / "bin/script"
    script.parent.mkdir()
    vagrant = script.with_name("vagrant")
    vagrant.write_text(f'#!/bin/sh\n. "{script}"\n')
    vagrant.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return script


@pytest.fixture
def call(tmp_path: Path) -> Vagrant:
    for name in ("home", "short", "root"):
        (tmp_path / name).mkdir()
    account = Account(
        user=None,
        home=tmp_path / "home",
        short=tmp_path / "short",
        vagrant_home=tmp_path / "boxes",
    )
    return Vagrant(root=tmp_path / "root", account=account, env={}, log=tmp_path / "log")


def test_states_of_interleaved_machines() -> None:
    assert read_states(STATUS) == {"node1": "running", "node2": "shutoff"}


@pytest.mark.parametrize(
    "rubbish",
    [
        "",
        "x\n",
        ",,,,\n",
        "1795432000,node1\n",
        "1795432000,node1,state\n",
        "a,b,state,running,and,more\n",
        '1795432000,node1,"half a quote\n',
        "\x00\x1b[31m,,,\n",
        "==> node1: A new version of the plugin, vagrant-libvirt, is there, hurry\n",
    ],
)
def test_rubbish_is_no_state_and_hides_none(rubbish: str) -> None:
    assert read_states(rubbish) == {}
    assert read_states(rubbish + STATUS)["node2"] == "shutoff"
    assert read_states(STATUS + rubbish)["node1"] == "running"


def test_the_last_word_on_a_machine_counts() -> None:
    assert read_states(STATUS + "1795432009,node1,state,paused\n")["node1"] == "paused"


def test_complaint_is_what_vagrant_said_was_wrong() -> None:
    said = complaint(finished(stdout=FAILED, stderr="noise\n"))
    assert said == "no 'node9', it seems. (MachineNotFound)"


def test_complaint_without_progress_bars() -> None:
    assert complaint(finished(stderr="Progress: 1%\rProgress: 99%\rno room\n")) == "no room"


def test_complaint_of_one_that_says_nothing() -> None:
    assert complaint(finished(status=7)) == "it ended with status 7 and said nothing"


def test_states_come_from_the_program(fake: Path, call: Vagrant) -> None:
    fake.write_text(f"cat <<'END'\n{STATUS}END\n")
    assert call.states() == {"node1": "running", "node2": "shutoff"}


def test_failure_is_quoted_and_logged(fake: Path, call: Vagrant) -> None:
    fake.write_text('echo "Bringing $2 up"; echo "No usable default provider" >&2; exit 1\n')
    with pytest.raises(CallFailed, match=r"`vagrant up node1 .*No usable default provider"):
        call.put_up("node1")
    log = call.log.read_text()
    assert "Bringing node1 up" in log
    assert "No usable default provider" in log


def test_hang_ends_with_all_of_its_group(fake: Path, call: Vagrant, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    fake.write_text(f"echo 'Waiting for domain'; sleep 300 & echo $! >{pid}; wait\n")
    began = time.monotonic()
    with pytest.raises(InfraError, match=r"did not end within 0.5 s.*Waiting for domain"):
        call.within(0.5).put_up("node1")
    assert time.monotonic() - began < 10
    assert not Path(f"/proc/{int(pid.read_text())}/fd/0").exists()


def test_crash_is_told_from_failure(fake: Path, call: Vagrant) -> None:
    fake.write_text("kill -SEGV $$\n")
    with pytest.raises(CallFailed, match="ended with status -11 and said nothing"):
        call.remove("node1")


def test_nothing_of_the_callers_environment_reaches_it(
    fake: Path, call: Vagrant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VAGRANT_CWD", "/elsewhere")
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "qemu:///system")
    fake.write_text("env >&2; pwd >&2\n")
    call.freeze("node1", "pristine")
    seen = call.log.read_text()
    assert "VAGRANT_CWD" not in seen
    assert "LIBVIRT" not in seen
    assert f"HOME={call.account.home}\n" in seen
    assert f"VAGRANT_HOME={call.account.vagrant_home}\n" in seen
    assert f"XDG_RUNTIME_DIR={call.account.short}\n" in seen
    assert str(call.place) in seen


def test_missing_program_is_the_hosts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="vagrant is not installed"):
        program()
