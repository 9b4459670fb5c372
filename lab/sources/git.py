# SPDX-License-Identifier: GPL-2.0-only
"""Run git on repositories that are not ours, without leaving a trace in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lab.process import Finished, run

QUIET = {
    # Nothing that only reads may write: no refreshed index, no lock file.
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}

OF_ANOTHER = dict.fromkeys(
    (
        # `git rev-parse --local-env-vars` has them, but for settings: a hook, or
        # whoever calls us from one, has another repository in mind.
        *("GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_DIR", "GIT_GRAFT_FILE"),
        *("GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_NO_REPLACE_OBJECTS"),
        *("GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE"),
        "GIT_WORK_TREE",
    )
)
"""Variables that are taken away from the caller's environment."""

SETTINGS = (
    # The lab reads trees of other owners, in a container say; it runs no code
    # of theirs: hooks and the file system monitor are off.
    *("-c", "safe.directory=*"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "core.quotePath=false"),
)

SLOWEST = {
    # Of HTTP: bytes a second, and the seconds after which less than that ends it.
    "GIT_HTTP_LOW_SPEED_LIMIT": "1000",
    "GIT_HTTP_LOW_SPEED_TIME": "120",
}

SSH = "ssh -oBatchMode=yes -oConnectTimeout=60 -oServerAliveInterval=30"
"""It asks nobody, and notices within two minutes that the other end is gone."""


def of_remotes(directory: Path) -> dict[str, str]:
    """Variables with which git does not wait for a remote for ever.

    What the user has set, or how they want ssh to be called, stays as it is.
    """
    env = {name: value for name, value in SLOWEST.items() if name not in os.environ}
    ssh = git("config", "--get", "core.sshCommand", directory=directory, check=False)
    if ssh.status != 0 and not {"GIT_SSH", "GIT_SSH_COMMAND"} & set(os.environ):
        env["GIT_SSH_COMMAND"] = SSH
    return env


def git(
    *arguments: str,
    directory: Path,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    on_line: Callable[[str], None] | None = None,
) -> Finished:
    """Run git in a directory.

    Raises:
        ProgramFailed: it failed, with ``check``.
    """
    return run(
        ("git", *SETTINGS, *arguments),
        cwd=directory,
        env={**OF_ANOTHER, **QUIET, **(env or {})},
        check=check,
        on_line=on_line,
    )
