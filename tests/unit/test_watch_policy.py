# SPDX-License-Identifier: GPL-2.0-only
"""The splat policy is data, and wrong data is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.errors import UserError
from lab.watch.event import Event
from lab.watch.policy import load_policy


def test_every_rule_of_the_shipped_policy_has_a_reason() -> None:
    policy = load_policy()
    assert len(policy.splats) > 40
    assert all(len(rule.reason) > 10 for rule in (*policy.splats, *policy.noise))


def write(path: Path, text: str) -> Path:
    file = path / "splats.yaml"
    file.write_text(text)
    return file


def test_yaml_that_is_none_names_its_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"splats\.yaml:3: not YAML"):
        load_policy(write(tmp_path, "splats:\n  - [\n"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("splats: [{kind: a, match: '(', severity: splat, reason: r}]", "not a splat policy"),
        ("splats: [{kind: a, match: b, severity: loud, reason: r}]", "severity"),
        ("splats: [{kind: a, match: b, severity: splat}]", "reason"),
        ("splats: [{kind: a, match: b, severity: splat, reason: r, often: 1}]", "often"),
    ],
)
def test_wrong_rules_are_refused(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        load_policy(write(tmp_path, text))


def test_noise_holds_for_its_kernels_and_flavours_only(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        "splats: []\nnoise: [{match: odd, reason: r, kernels: ['6.1'], flavours: [debug]}]\n",
    )
    noise = load_policy(file).noise[0]
    assert noise.covers(event("odd"), kernel="6.1.192", flavour="debug")
    assert not noise.covers(event("odd"), kernel="6.12.3", flavour="debug")
    assert not noise.covers(event("odd"), kernel="6.1.192", flavour="default")
    assert not noise.covers(event("even"), kernel="6.1.192", flavour="debug")


@pytest.mark.parametrize("whole", [False, True])
def test_a_line_that_fell_into_a_report_excuses_it_only_if_all_of_it_counts(
    tmp_path: Path, whole: bool
) -> None:
    given = f"splats: []\nnoise: [{{match: odd, reason: r, whole: {str(whole).lower()}}}]\n"
    noise = load_policy(write(tmp_path, given)).noise[0]
    assert noise.covers(event("BUG: KASAN", "odd"), kernel="6.12.3", flavour="debug") == whole


def event(title: str, *more: str) -> Event:
    return Event(kind="bug", severity="splat", title=title, lines=(title, *more), stack=(),
                 fingerprint="0", line=1, time=0.0)  # fmt: skip
