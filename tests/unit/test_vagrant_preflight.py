# SPDX-License-Identifier: GPL-2.0-only
"""Each thing that is missing is named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from lab.errors import HostError, InfraError
from lab.provider import vagrant_preflight as preflight

ALL = {name: f"/usr/bin/{name}" for name, _, _ in preflight.PROGRAMS}


@pytest.mark.parametrize("name", list(ALL))
def test_a_missing_program_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Not this host's plugin, nor its vagrant: it may have neither.
    gems = tmp_path / "all" / "specifications"
    gems.mkdir(parents=True)
    (gems / f"{preflight.PLUGIN}-0.11.2.gemspec").touch()
    monkeypatch.setattr(preflight, "GEMS", tmp_path)
    there = {key: path for key, path in ALL.items() if key != name}
    monkeypatch.setattr(preflight.shutil, "which", lambda program, **_: there.get(program))
    with pytest.raises(HostError, match=name) as caught:
        preflight.require()
    assert "--for vagrant" in str(caught.value)


def test_a_missing_plugin_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "vagrant"
    fake.write_text("#!/bin/sh\necho 'vagrant-share (1.0, global)'\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(preflight, "GEMS", tmp_path)
    monkeypatch.setattr(preflight.shutil, "which", lambda program, **_: ALL.get(program))
    with pytest.raises(HostError, match="vagrant-libvirt: not installed"):
        preflight.require()
    fake.write_text("#!/bin/sh\necho 'vagrant-libvirt (0.11.2, global)'\n")
    preflight.require()


@pytest.mark.parametrize("symbol", preflight.SYMBOLS)
def test_a_missing_symbol_is_named(symbol: str, tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("".join(f"CONFIG_{one}=y\n" for one in preflight.SYMBOLS))
    preflight.require_symbols(config)
    config.write_text(
        "".join(f"CONFIG_{one}=y\n" for one in preflight.SYMBOLS if one != symbol)
        + f"# CONFIG_{symbol} is not set\n"
    )
    with pytest.raises(HostError, match=rf"{symbol}\b"):
        preflight.require_symbols(config)


def test_a_silent_session_daemon_is_named() -> None:
    def ask(words: Sequence[str]) -> str:
        raise InfraError(f"virsh {words[0]}: Failed to connect socket")

    with pytest.raises(HostError, match=r"session daemon.*Failed to connect"):
        preflight.session(ask)
