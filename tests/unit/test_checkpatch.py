# SPDX-License-Identifier: GPL-2.0-only
"""What checkpatch says of patches stands where the user has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import InfraError
from lab.kernel.checkpatch import Finding, check_patches
from lab.kernel.series import NO_PATCHES, Patch, PatchSeries, make_patch
from lab.store import Store

DIFF = "--- a/a.c\n+++ b/a.c\n@@ -1 +1 @@\n-int a;\n+int b;\n"

#: Says something of the third line of each patch that it is given.
LOUD = """
print "$_:3: WARNING:SPACING: look\\n" for grep { /[.]patch$/ } @ARGV;
print "total: 0 errors, 1 warnings\\n"; exit 1;
"""


def tree(directory: Path, perl: str) -> Path:
    script = directory / "scripts/checkpatch.pl"
    script.parent.mkdir()
    script.write_text(perl)
    return directory


def patch(name: str, offset: int | None) -> Patch:
    return make_patch(name=name, file=Path("/my/series.mbox"), text=DIFF, offset=offset)


def test_findings_name_the_users_file_and_line(tmp_path: Path) -> None:
    series = PatchSeries(
        name="x", patches=(patch("one", 0), patch("two", 40), patch("three", None))
    )
    found = check_patches(tree(tmp_path, LOUD), series, Store(tmp_path / "store"))
    assert found == [
        Finding("/my/series.mbox", 3, "SPACING", "look"),
        Finding("/my/series.mbox", 43, "SPACING", "look"),
        # A decoded mail does not stand there as it was read.
        Finding("/my/series.mbox: three", 3, "SPACING", "look"),
    ]


def test_no_patches_are_not_looked_at(tmp_path: Path) -> None:
    assert check_patches(tree(tmp_path, "die;"), NO_PATCHES, Store(tmp_path / "store")) == []


def test_checkpatch_that_did_not_end_well(tmp_path: Path) -> None:
    series = PatchSeries(name="x", patches=(patch("one", 0),))
    with pytest.raises(InfraError):
        check_patches(tree(tmp_path, "exit 1;"), series, Store(tmp_path / "store"))
