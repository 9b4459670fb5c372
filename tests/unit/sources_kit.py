# SPDX-License-Identifier: GPL-2.0-only
"""Tiny kernel trees, repositories and patches for the tests of sources and patches."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

MAKEFILE = """\
# SPDX-License-Identifier: GPL-2.0
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 117
EXTRAVERSION =
NAME = Baby Opossum Posse
"""

DEV_C = "".join(f"int line{number};\n" for number in range(1, 41))

FILES = {
    "Makefile": MAKEFILE,
    "Kconfig": "mainmenu\n",
    "Kbuild": "obj-y := net/\n",
    "scripts/Kbuild.include": "comma := ,\n",
    "net/core/dev.c": DEV_C,
    "net/core/sock.c": "int sock;\n",
    "include/linux/net.h": "int net;\n",
}


def write_tree(root: Path, files: Mapping[str, str] = FILES) -> Path:
    """Write files below a directory."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def read_tree(root: Path) -> dict[str, tuple[str, int]]:
    """Everything below a directory: content and mode of files, targets of links."""
    found = {}
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory, name)
            mode = path.lstat().st_mode
            content = str(path.readlink()) if path.is_symlink() else path.read_text("latin-1")
            found[str(path.relative_to(root))] = (content, mode)
    return found


def git(directory: Path, *arguments: str) -> str:
    """Run git as somebody, away from the settings of whoever runs the tests."""
    done = subprocess.run(
        ["git", "-c", "user.name=A", "-c", "user.email=a@b.invalid", *arguments],
        cwd=directory,
        env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip()


def make_repository(root: Path, files: Mapping[str, str] = FILES) -> Path:
    """A git tree with one commit on branch main."""
    write_tree(root, files)
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", "--all", "--force")
    git(root, "commit", "--quiet", "--message", "first")
    return root


def change(old: str, new: str, *, line: int = 20, file: str = "net/core/dev.c") -> str:
    """A patch that replaces one of dev.c's lines, with three lines of context."""
    before = [f" int line{number};\n" for number in range(line - 3, line)]
    after = [f" int line{number};\n" for number in range(line + 1, line + 4)]
    return (
        f"--- a/{file}\n+++ b/{file}\n@@ -{line - 3},7 +{line - 3},7 @@\n"
        + "".join(before)
        + f"-{old}\n+{new}\n"
        + "".join(after)
    )


def create(file: str, *lines: str) -> str:
    """A patch that makes a file."""
    return (
        f"diff --git a/{file} b/{file}\nnew file mode 100644\n--- /dev/null\n+++ b/{file}\n"
        f"@@ -0,0 +1,{len(lines)} @@\n" + "".join(f"+{line}\n" for line in lines)
    )
