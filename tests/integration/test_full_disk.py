# SPDX-License-Identifier: GPL-2.0-only
"""The store on a disk that really is full: a small tmpfs in a mount namespace of our own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Root needs no user namespace, and within a chroot could not have one.
NAMESPACE = ["unshare", "--mount"] + ([] if os.geteuid() == 0 else ["--map-root-user"])

FILL = """
import sys
from pathlib import Path
from lab import cli
from lab.store import Store
import typer

class Fill:
    @staticmethod
    def register(app):
        @app.command("fill")
        def fill(how: str) -> None:
            def build(path):
                if how == "ourselves":
                    (path / "big").write_bytes(b"x" * (16 << 20))
                else:
                    from lab.process import run
                    run(["dd", "if=/dev/zero", f"of={path}/big", "bs=1M", "count=16"])
            Store().make("thing", {"how": how}, build)

cli.COMMANDS = (Fill, *cli.COMMANDS)
cli.main()
"""


@pytest.mark.skipif(
    subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode != 0,
    reason="this host gives us no mount namespace",
)
@pytest.mark.parametrize("how", ["ourselves", "a program"])
def test_full_disk_is_one_message_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    script = (
        f"mount -t tmpfs -o size=8M none {tmp_path} && "
        f'LAB_CACHE={tmp_path}/store "$@"; status=$?; ls -A {tmp_path}/store/tmp; exit $status'
    )
    done = subprocess.run(
        [*NAMESPACE, "sh", "-c", script, "sh", sys.executable, "-c", FILL, "fill", how],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert "no space left on the disk" in done.stderr
    assert "lab gc" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.split() == [".sweeper"]
