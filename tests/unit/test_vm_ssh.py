# SPDX-License-Identifier: GPL-2.0-only
"""Copies to and from a kept machine: whole or not at all, and whose fault it was."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import paramiko
import pytest

from lab.errors import InfraError, LabError, UserError
from lab.vm import ssh

KEPT: Any = SimpleNamespace(name="a")


class Connection:
    """As fabric's: opens the file here before it looks for the one there."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.commands: list[str] = []

    def run(self, command: str, **_: object) -> SimpleNamespace:
        self.commands.append(command)
        return SimpleNamespace(failed=False)

    def get(self, _: str, local: str) -> None:
        Path(local.format()).parent.mkdir(parents=True, exist_ok=True)
        with Path(local.format()).open("w") as file:
            if self.error:
                raise self.error
            file.write("there")

    def put(self, _: str, remote: str) -> None:
        raise self.error or AssertionError(remote)


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Connection:
    connection = Connection()

    @contextlib.contextmanager
    def connect(_: object) -> Iterator[Connection]:
        yield connection

    monkeypatch.setattr(ssh, "connect", connect)
    return connection


@pytest.mark.usefixtures("there")
def test_a_file_gets_its_name_or_goes_into_a_directory(tmp_path: Path) -> None:
    ssh.get(KEPT, "/etc/hostname", tmp_path)
    ssh.get(KEPT, "/etc/hostname", tmp_path / "{x}")
    found = sorted((file.name, file.read_text()) for file in tmp_path.iterdir())
    assert found == [("hostname", "there"), ("{x}", "there")]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError(2, "No such file"), UserError),
        (OSError("Failure"), UserError),
        (ConnectionRefusedError(111, "Connection refused"), InfraError),
        (paramiko.SSHException("no banner"), InfraError),
    ],
)
def test_what_was_here_stays_where_a_copy_fails(
    tmp_path: Path, there: Connection, error: Exception, kind: type[LabError]
) -> None:
    there.error = error
    (tmp_path / "x").write_text("here")
    with pytest.raises(kind, match="copied"):
        ssh.get(KEPT, "/x", tmp_path)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["here"]
    with pytest.raises(kind, match="copied"):
        ssh.put(KEPT, tmp_path / "x", "/nowhere/x")


@pytest.mark.usefixtures("there")
def test_no_directory_is_made_here(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such directory"):
        ssh.get(KEPT, "/etc/hostname", tmp_path / "typo" / "file")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_directory_is_copied_too(tmp_path: Path, there: Connection) -> None:
    ssh.put(KEPT, tmp_path, "/a b")
    assert there.commands == ["mkdir -p '/a b'"]


def test_an_empty_path_there_is_refused(tmp_path: Path, there: Connection) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match="empty"):
        ssh.put(KEPT, tmp_path, "")
    with pytest.raises(UserError, match="empty"):
        ssh.get(KEPT, "", tmp_path)
    assert there.commands == []
