# SPDX-License-Identifier: GPL-2.0-only
"""Selftests of which some were not built."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from lab.errors import HostError, KernelError
from lab.kernel import kselftest

BROKEN = "tls.c:46:13: error: too many arguments to function 'init'\n"


def built(directory: Path, *programs: str) -> Path:
    """What an installation looks like that lists two and has these."""
    (directory / "net").mkdir()
    (directory / kselftest.LIST).write_text("net:tls\nnet:good.sh\n")
    for program in programs:
        (directory / "net" / program).touch()
    return directory


def tell(content: Path, said: str) -> None:
    log = content / "log"
    log.write_text(said)
    kselftest._tell_missing(content, ["net"], source=Path("/source"), log=log)


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tell(built(tmp_path, "good.sh"), BROKEN)
    assert capsys.readouterr().err.endswith("log: net:tls\n")


def test_nothing_is_said_where_nothing_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tell(built(tmp_path, "good.sh", "tls"), "")
    assert capsys.readouterr().err == ""


def test_none_built_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="too many arguments"):
        tell(built(tmp_path), BROKEN)


def test_a_full_disk_is_the_hosts_fault(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="no space left"):
        tell(built(tmp_path, "good.sh"), f"ld: tls: {os.strerror(errno.ENOSPC)}\n")
