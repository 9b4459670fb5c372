# SPDX-License-Identifier: GPL-2.0-only
"""Which mirror serves a suite, from what the host's own apt says."""

from __future__ import annotations

import pytest

from lab.sources.apt import mirror

MAIN = "http://mirror.invalid/debian/"
SECURITY = "http://security.invalid/debian-security/"
BOOKWORM = (
    f"bookworm|main|{MAIN}\nbookworm-updates|main|{MAIN}\nbookworm-security|main|{SECURITY}\n"
)
OTHER = "nodistro|main|https://vendor.invalid/node/\nbookworm|stable|https://other.invalid/x/\n"


@pytest.mark.parametrize(
    ("suite", "targets", "uri"),
    [
        ("bookworm", BOOKWORM, MAIN),
        ("trixie-backports", BOOKWORM, MAIN),
        ("trixie-backports", OTHER + BOOKWORM, MAIN),
        ("bookworm-security", BOOKWORM, SECURITY),
        ("trixie-security", BOOKWORM, SECURITY),
        ("bookworm-security", f"trixie|main|{MAIN}\n", "http://mirror.invalid/debian-security/"),
        ("bookworm", f"trixie|main|{MAIN}\ntrixie-security|main|{SECURITY}\n", MAIN),
        ("bookworm", f"bookworm-security|main|{SECURITY}\n", None),
        ("bookworm", "", None),
        ("bookworm-security", "", None),
    ],
)
def test_mirror(suite: str, targets: str, uri: str | None) -> None:
    assert mirror(suite, targets=targets) == uri
