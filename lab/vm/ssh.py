# SPDX-License-Identifier: GPL-2.0-only
"""SSH to a kept machine, for people and for bulk copies.

The keys of both ends are made on the host, because making them is slow under
emulation; so the host key is known before the first connection.  sshd is
started when somebody asks for it.
"""

from __future__ import annotations

import contextlib
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import fabric  # type: ignore[import-untyped]
import paramiko
from paramiko.ssh_exception import NoValidConnectionsError

from lab.errors import InfraError, UserError
from lab.vm.argv import SSH_MAC
from lab.vm.errors import CommandFailed
from lab.vm.keep import Kept, attach

#: The guest's address on QEMU's user network.
GUEST = "10.0.2.15/24"

CONNECT_TIMEOUT = 20.0

_UNCONNECTED = (
    paramiko.SSHException,
    NoValidConnectionsError,
    ConnectionError,
    TimeoutError,
    EOFError,
)

START = f"""\
set -e
card=$(ip -o link | sed -n 's/^[0-9]*: \\([^:@]*\\).*{SSH_MAC}.*/\\1/p')
test -n "$card"
ip addr replace {GUEST} dev "$card"
ip link set "$card" up
chmod 700 /root/.ssh
chmod 600 /root/.ssh/authorized_keys /run/sshd/host_key
pgrep -x sshd >/dev/null || /usr/sbin/sshd </dev/null >/dev/null 2>&1
"""


@dataclass(frozen=True, kw_only=True)
class Access:
    """What a client needs.

    Attributes:
        port: on the host's loopback.
        key: private key file.
        known_hosts: with the guest's host key.
    """

    port: int
    key: Path
    known_hosts: Path

    def argv(self, command: list[str]) -> list[str]:
        """The command line of OpenSSH's client."""
        return [
            "ssh",
            "-F",
            "none",
            "-i",
            str(self.key),
            "-p",
            str(self.port),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            f"UserKnownHostsFile={self.known_hosts}",
            "-o",
            "LogLevel=ERROR",
            "root@127.0.0.1",
            *command,
        ]


def ready(kept: Kept) -> Access:
    """Give the machine its keys and start its sshd, unless that was done before.

    Raises:
        InfraError: sshd does not start.
    """
    access = Access(
        port=kept.ssh_port,
        key=kept.directory / "id_ecdsa",
        known_hosts=kept.directory / "known_hosts",
    )
    machine = attach(kept)
    client = _key(access.key)
    host = _key(kept.directory / "host_key")
    access.known_hosts.write_text(
        f"[127.0.0.1]:{access.port} {host.get_name()} {host.get_base64()}\n"
    )
    try:
        machine.succeed("mkdir -p /root/.ssh /run/sshd")
    except CommandFailed as error:
        raise InfraError(f"{kept.name} takes no key: {error.stderr.strip()}") from error
    machine.copy_to(
        f"{client.get_name()} {client.get_base64()} lab\n", "/root/.ssh/authorized_keys"
    )
    machine.copy_to((kept.directory / "host_key").read_bytes(), "/run/sshd/host_key")
    done = machine.execute(START)
    if done.status != 0:
        raise InfraError(
            f"{kept.name}: sshd does not start: {done.stderr.strip()}",
            right="is openssh-server in the image?",
        )
    return access


def connect(kept: Kept) -> fabric.Connection:
    """A fabric connection; a context manager."""
    access = ready(kept)
    connection = as_root(access.port, access.key, limit=CONNECT_TIMEOUT)
    connection.client.load_host_keys(str(access.known_hosts))
    connection.client.set_missing_host_key_policy(paramiko.RejectPolicy())
    return connection


def as_root(port: int, key: Path, *, limit: float) -> fabric.Connection:
    """A connection, not yet open, to root behind a port of the host's loopback.

    Args:
        limit: seconds for each step of connecting.
    """
    return fabric.Connection(
        "127.0.0.1",
        user="root",
        port=port,
        connect_timeout=int(limit),
        # Nothing of the user's own ssh configuration: the machine is not theirs to name.
        config=fabric.Config(lazy=True),
        connect_kwargs={
            "key_filename": str(key),
            "look_for_keys": False,
            "allow_agent": False,
            "banner_timeout": limit,
            "auth_timeout": limit,
        },
    )


def put(kept: Kept, source: Path, target: str) -> None:
    """Copy a file or a directory to the machine.

    Raises:
        UserError: it cannot be read here, or written there.
        InfraError: there is no connection.
    """
    _refuse_nameless(target)  # a directory's files would go to /
    with _copying(f"{source} to {kept.name}:{target}"), connect(kept) as connection:
        if not source.is_dir():
            connection.put(str(source), remote=target)
            return
        _make_directory(connection, target)
        for path in sorted(source.rglob("*")):
            there = f"{target.rstrip('/')}/{path.relative_to(source)}"
            if path.is_dir():
                _make_directory(connection, there)
            else:
                _make_directory(connection, str(PurePosixPath(there).parent))
                connection.put(str(path), remote=there)


def get(kept: Kept, source: str, target: Path) -> None:
    """Copy a file from the machine, whole or not at all.

    Args:
        target: its new name, or a directory that it goes into.

    Raises:
        UserError: it cannot be read there, or written here.
        InfraError: there is no connection.
    """
    _refuse_nameless(source)
    file = target / PurePosixPath(source).name if target.is_dir() else target
    if not file.parent.is_dir():  # fabric would make it, whether or not there is what it gets
        raise UserError("there is no such directory", file=file.parent, right="make it first")
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    with _copying(f"{kept.name}:{source} to {file}"), connect(kept) as connection:
        try:
            # fabric takes braces for fields that it fills in.
            connection.get(source, local=str(new).replace("{", "{{").replace("}", "}}"))
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)


def _refuse_nameless(path: str) -> None:
    if not path:
        raise UserError("the path in the machine is empty", right="name a file there")


def _make_directory(connection: fabric.Connection, path: str) -> None:
    done = connection.run(f"mkdir -p {shlex.quote(path)}", hide=True, warn=True)
    if done.failed:
        raise OSError(done.stderr.strip())


@contextlib.contextmanager
def _copying(what: str) -> Iterator[None]:
    try:
        yield
    except _UNCONNECTED as error:
        raise InfraError(f"{what} was not copied: {error}") from error
    except OSError as error:
        raise UserError(f"{what} cannot be copied: {error.strerror or error}") from error


def _key(file: Path) -> paramiko.ECDSAKey:
    """The key in a file, made at the first call."""
    if not file.exists():
        key = paramiko.ECDSAKey.generate()
        key.write_private_key_file(str(file))
        file.chmod(0o600)
    return paramiko.ECDSAKey.from_private_key_file(str(file))
