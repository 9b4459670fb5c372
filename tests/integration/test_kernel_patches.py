# SPDX-License-Identifier: GPL-2.0-only
"""Our own kernel patches, as a maintainer takes them: by `git am`, on pristine source."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from lab import lockfile, manifest
from lab.kernel.apply import stage, touched
from lab.kernel.recipe import LOCK
from lab.kernel.series import load_series
from lab.manifest import ROOT, DebianSource
from lab.sources import debian
from lab.sources.fetch import GROUP, KIND, request
from lab.store import Store

TOPIC = ROOT / "kernel-patches/xdplua"

LINES = sorted(path.parent.name for path in TOPIC.glob("*/series"))

#: Nobody's settings decide how strict git is.
ENVIRONMENT = os.environ | {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "test" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "test@lunatik.invalid" for who in ("AUTHOR", "COMMITTER")},
}


def git(tree: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=tree, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def pristine(line: str) -> Path:
    """The unpacked source of a kernel line, if an earlier build has left it in the store."""
    spec = manifest.read().kernel(line)
    source = spec.source
    if not isinstance(source, DebianSource):
        pytest.skip(f"lab.yaml has {line} from elsewhere than Debian")
    locked = lockfile.read(LOCK).get(GROUP, line, request(spec))
    found = locked and Store().get(KIND, debian.inputs(package=source.debian, locked=locked))
    if not found:
        pytest.skip(f"the source of {line} is not in the store: lab kernel config {line}")
    return found.path


def content(tree: Path) -> dict[str, tuple[bytes, bool]]:
    """Each file's bytes, and whether it is executable."""
    return {
        str(path.relative_to(tree)): (path.read_bytes(), bool(path.stat().st_mode & stat.S_IXUSR))
        for path in tree.rglob("*")
        if path.is_file() and ".git" not in path.parts
    }


@pytest.mark.parametrize("line", LINES)
def test_git_am_makes_what_the_lab_builds(line: str, tmp_path: Path) -> None:
    source = pristine(line)
    series = load_series(TOPIC, line=line)

    def base(name: str) -> Path | None:
        return source / name if (source / name).exists() else None

    ours, theirs = tmp_path / "lab", tmp_path / "git"
    ours.mkdir()
    stage(series, base, ours, version=line)
    for name in touched(series):
        if (file := base(name)) is not None:
            (theirs / name).parent.mkdir(parents=True, exist_ok=True)
            (theirs / name).write_bytes(file.read_bytes())
            (theirs / name).chmod(file.stat().st_mode | stat.S_IWUSR)
    git(theirs, "init", "-q")
    git(theirs, "add", ".")
    git(theirs, "commit", "-q", "-m", "pristine")
    git(theirs, "am", "-q", *(str(patch.file) for patch in series.patches))

    assert git(theirs, "rev-list", "--count", "HEAD").strip() == str(1 + len(series.patches))
    assert git(theirs, "status", "--porcelain") == ""
    assert content(theirs) == content(ours)


@pytest.mark.parametrize("line", LINES)
def test_series_lists_each_patch_once(line: str) -> None:
    listed = [patch.file.name for patch in load_series(TOPIC, line=line).patches]
    assert listed == sorted(path.name for path in (TOPIC / line).glob("*.patch"))
