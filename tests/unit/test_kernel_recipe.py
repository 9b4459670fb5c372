# SPDX-License-Identifier: GPL-2.0-only
"""What is wrong with a recipe shows before its source is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import UserError
from lab.kernel import recipe
from lab.manifest import Manifest, read
from lab.store import Store

OVERLAY = """\
kernels:
  mine:
    source: {debian: linux-source-6.12, suite: bookworm-security}
    config: gone.config
"""


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    def identify(*_: object, **__: object) -> None:
        raise AssertionError("the source is asked for too early")

    monkeypatch.setattr(recipe, "identify", identify)
    (tmp_path / "own.yaml").write_text(OVERLAY)
    return read(tmp_path / "own.yaml")


def test_config_of_the_manifest_that_is_not_there(lab: Manifest, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        recipe.make_recipe(lab, "mine", store=Store(tmp_path / "store"))
    own = tmp_path / "own.yaml"
    assert str(caught.value) == f"{own}:4: there is no .config `{tmp_path}/gone.config`"


@pytest.mark.parametrize(("name", "what"), [("", "a directory"), ("gone", "no such .config")])
def test_config_asked_for_that_is_none(lab: Manifest, tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(UserError, match=what) as caught:
        recipe.make_recipe(lab, "mine", store=Store(tmp_path / "store"), config=tmp_path / name)
    assert caught.value.file == tmp_path / name
