# SPDX-License-Identifier: GPL-2.0-only
"""Kconfig expressions: three values, precedence, and what is lacking."""

import pytest

from lab.kernel.expression import M, N, Y, lacking, level, parse, symbols

VALUES = {"YES": "y", "MOD": "m", "NO": "n", "NUM": "8", "TEXT": '"abc"'}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("YES", Y),
        ("MOD", M),
        ("NO", N),
        ("ABSENT", N),
        ("!NO", Y),
        ("!MOD", M),
        ("!YES", N),
        ("YES && MOD", M),
        ("NO || MOD", M),
        ("NO && YES || YES", Y),  # && binds closer
        ("NO && (YES || YES)", N),
        ("!(NO || NO)", Y),
        ("!NO && MOD", M),
        ("MOD=m", Y),
        ("MOD = y", N),
        ("MOD!=n", Y),
        ("YES=MOD", N),
        ("NUM=8", Y),
        ("NUM<16", Y),
        ("NUM>16", N),
        ("NUM>=0x8", Y),
        ('TEXT="abc"', Y),
        ('TEXT!="abc"', N),
        ("m", M),
        ("$(cc-option,-fx)", Y),
        ('"$(CC)"="gcc"', Y),
        ("NO && $(success,test (a))", N),
    ],
)
def test_the_level_of_an_expression(text: str, expected: int) -> None:
    assert level(parse(text), VALUES) == expected


@pytest.mark.parametrize("text", ["", "A &&", "(A", "A B", "A = ", "$(open"])
def test_what_is_no_expression_is_none(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    ("text", "wanted", "expected"),
    [
        ("YES && NO && MOD", Y, ["NO", "MOD"]),
        ("YES && NO && MOD", M, ["NO"]),
        ("(NO || ABSENT) && YES", Y, ["NO || ABSENT"]),
        ("!YES", Y, ["!YES"]),
        ("NO || YES", Y, []),
    ],
)
def test_what_is_lacking_is_small(text: str, wanted: int, expected: list[str]) -> None:
    assert [str(part) for part in lacking(parse(text), VALUES, wanted=wanted)] == expected


def test_expressions_print_as_they_are_written() -> None:
    for text in ("A && (B || !C)", "A=y || B", "!(A && B)"):
        assert str(parse(text)) == text


def test_symbols_are_found_in_order() -> None:
    assert symbols(parse("A && (B || !C) && D=y && $(x)")) == ["A", "B", "C", "D"]
