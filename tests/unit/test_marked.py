# SPDX-License-Identifier: GPL-2.0-only
"""YAML that guesses nothing and knows where everything stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import marked
from lab.errors import UserError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "some.yaml"


def refused(file: Path, text: str) -> UserError:
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        marked.load(file)
    return caught.value


def test_values_know_their_lines(file: Path) -> None:
    file.write_text('a: x\n\nb:\n  c: [1,\n      two]\n"6.12": true\n')
    value = marked.load(file)
    assert value == {"a": "x", "b": {"c": [1, "two"]}, "6.12": True}
    assert value.key_at["b"].line == 3
    assert value["b"].value_at["c"].line == 4
    assert value["b"]["c"].value_at[1] == marked.Where(file, 5)


def test_empty_file_is_an_empty_mapping(file: Path) -> None:
    file.write_text("# nothing\n")
    assert marked.load(file) == {}


@pytest.mark.parametrize("text", ["kernels:\n  6.10:\n    x: y\n", "a: b\nversion: 6.10\n"])
def test_float_is_refused_with_the_text_to_write(file: Path, text: str) -> None:
    error = refused(file, text)
    assert error.line == 2
    assert str(error).startswith(f"{file}:2: 6.10 ")
    assert error.right == 'quote the version: "6.10"'


@pytest.mark.parametrize("text", [".5", "1.0e+3", "1.", ".inf", "6_1.0"])
def test_every_spelling_of_a_float_is_refused(file: Path, text: str) -> None:
    assert "quote" in str(refused(file, f"a: {text}\n"))


def test_three_part_version_is_text(file: Path) -> None:
    file.write_text("version: 6.12.1\n")
    assert marked.load(file) == {"version": "6.12.1"}


@pytest.mark.parametrize("text", ["010", "0x1f", "1:30", "1_000", "+1"])
def test_integers_with_a_second_meaning_are_refused(file: Path, text: str) -> None:
    assert refused(file, f"a: {text}\n").right == f'quote it: "{text}"'


@pytest.mark.parametrize("text", ["yes", "no", "on", "Off"])
def test_truth_values_in_disguise_are_refused(file: Path, text: str) -> None:
    assert "true or false" in str(refused(file, f"a: {text}\n"))


def test_duplicate_key_names_both_lines(file: Path) -> None:
    error = refused(file, "a: 1\nb: 2\na: 3\n")
    assert error.line == 3
    assert "`a` is here twice" in error.what
    assert "line 1" in str(error.right)


def test_duplicate_key_below_is_refused(file: Path) -> None:
    assert refused(file, "x:\n  a: 1\n  a: 1\n").line == 3


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: b\n c: d\n", 2),
        ("a: [1\n", 2),
        ("a:\n\t- b\n", 2),
        ("a: *nowhere\n", 1),
        ("a: 1\n---\nb: 2\n", 2),
    ],
)
def test_broken_yaml_names_the_line(file: Path, text: str, line: int) -> None:
    error = refused(file, text)
    assert "not YAML" in error.what
    assert error.line == line


@pytest.mark.parametrize(
    "text",
    [
        "- a\n",
        "just text\n",
        "a: !!python/object:os.system x\n",
        "a: !!binary eA==\n",
        "? [x]\n: y\n",
        "7: seven\n",
        "a: &a {b: *a}\n",
        "base: &b {x: y}\na: {<<: *b}\n",
        "a: \x01\n",
    ],
)
def test_refused(file: Path, text: str) -> None:
    assert refused(file, text).line == (2 if "<<" in text else 1)


def test_not_text(file: Path) -> None:
    file.write_bytes(b"a: \xff\n")
    with pytest.raises(UserError, match="UTF-8"):
        marked.load(file)


def test_no_file(file: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        marked.load(file)


def test_depth_is_bounded(file: Path) -> None:
    error = refused(file, "a: " + "[" * 5000 + "]" * 5000 + "\n")
    assert "nested too deeply" in error.what


def test_merge_keeps_the_place_of_what_won(tmp_path: Path) -> None:
    under, over = tmp_path / "under.yaml", tmp_path / "over.yaml"
    under.write_text("a: {x: 1, y: 2}\nlist: [1, 2]\n")
    over.write_text("\n\na: {y: 3}\nlist: [9]\n")
    result = marked.merge(marked.load(under), marked.load(over))
    assert result == {"a": {"x": 1, "y": 3}, "list": [9]}
    assert result["a"].value_at["x"] == marked.Where(under, 1)
    assert result["a"].value_at["y"] == marked.Where(over, 3)


def test_merge_replaces_choices_whole(tmp_path: Path) -> None:
    under, over = tmp_path / "under.yaml", tmp_path / "over.yaml"
    under.write_text("kernels: {k: {source: {debian: d, suite: s}, patches: [p]}}\n")
    over.write_text("kernels: {k: {source: {path: /x}}}\n")
    result = marked.merge(marked.load(under), marked.load(over), whole=["kernels.*.source"])
    assert result == {"kernels": {"k": {"source": {"path": "/x"}, "patches": ["p"]}}}


def test_similar() -> None:
    assert marked.similar("kernals", ["kernels", "images"]) == "did you mean `kernels`?"
    assert marked.similar("zzz", ["b", "a"]) == "there is `a`, `b`"
    assert marked.similar("zzz", []) is None
