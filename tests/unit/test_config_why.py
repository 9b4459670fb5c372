# SPDX-License-Identifier: GPL-2.0-only
"""Why a symbol was missed, on a Kconfig of a few lines."""

from pathlib import Path

import pytest

from lab.errors import UserError
from lab.kernel.config import check
from lab.kernel.fragment import Request
from lab.kernel.kconfig import read_kconfig

KCONFIG = """\
mainmenu "Test"

config MODULES
\tbool "Modules"
\tmodules

source "net/Kconfig"

choice
\tprompt "Compression"

config GZIP
\tbool "gzip"

config LZ4
\tbool "lz4"

endchoice

config HIDDEN
\tbool

config PICKER
\tbool "Picks" if NET
\tselect HIDDEN if NET
\thelp
\t  config NOT_A_SYMBOL
\t  depends on nothing

config NAME
\tstring "Name"

config SIZE
\tint "Size"
\trange 1 10

config ARCH_HAS
\tbool

config NEEDS_ARCH
\tbool "x"
\tdepends on ARCH_HAS
"""

NET = """\
menuconfig NET
\tbool "Net"

if NET

menu "Filters"
\tdepends on !SMALL

config FILTER
\ttristate "Filter" \\
\t\tif NET

config FILTER_LOG
\ttristate "Log"
\tdepends on FILTER && $(cc-option,-fx)   # a comment

endmenu

endif # NET

config SMALL
\tbool "Small"
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "net").mkdir()
    (tmp_path / "Kconfig").write_text(KCONFIG)
    (tmp_path / "net/Kconfig").write_text(NET)
    return tmp_path


def request(symbol: str, value: str, *, line: int = 1, if_known: bool = False) -> Request:
    file = Path("some.config")
    return Request(symbol=symbol, value=value, file=file, line=line, if_known=if_known)


def why(tree: Path, values: dict[str, str], *requests: Request) -> str:
    with pytest.raises(UserError) as caught:
        check(values, requests, tree=tree)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_met_requests_are_no_error(tree: Path) -> None:
    check({"NET": "y", "SIZE": "8"}, [request("NET", "y"), request("SIZE", "0x8")], tree=tree)
    check({}, [request("NET", "n")], tree=tree)


def test_a_dependency_that_is_off(tree: Path) -> None:
    said = why(tree, {"NET": "y"}, request("FILTER_LOG", "y", line=7))
    assert said.startswith("some.config:7: CONFIG_FILTER_LOG=y was asked for and became n")
    assert "depends on FILTER, which is n" in said
    assert "(net/Kconfig:13)" in said
    assert "ask for CONFIG_FILTER=y as well" in said


def test_dependencies_of_dependencies(tree: Path) -> None:
    said = why(tree, {}, request("FILTER_LOG", "m"))
    assert "FILTER, which is n because it depends on NET, which is n" in said


def test_a_dependency_that_a_fragment_turned_off(tree: Path) -> None:
    said = why(tree, {}, request("FILTER", "y", line=1), request("NET", "n", line=2))
    assert "depends on NET, which is n as some.config:2 asks" in said


def test_a_dependency_that_is_only_a_module(tree: Path) -> None:
    values = {"NET": "y", "FILTER": "m", "FILTER_LOG": "m"}
    assert "FILTER, which is m" in why(tree, values, request("FILTER_LOG", "y"))


def test_a_negated_dependency(tree: Path) -> None:
    said = why(tree, {"NET": "y", "SMALL": "y"}, request("FILTER", "y"))
    assert "depends on !SMALL, and here SMALL=y" in said


def test_a_symbol_that_does_not_exist(tree: Path) -> None:
    said = why(tree, {}, request("FILTR_LOG", "y", line=3))
    assert "some.config:3" in said
    assert "no such symbol; did you mean CONFIG_FILTER_LOG" in said


def test_help_texts_define_nothing(tree: Path) -> None:
    assert "NOT_A_SYMBOL" not in read_kconfig(tree).definitions


def test_a_typo_is_noticed_even_if_it_is_to_be_off(tree: Path) -> None:
    assert "no such symbol" in why(tree, {}, request("FILTR", "n"))


def test_if_known_forgives_only_what_is_unknown(tree: Path) -> None:
    check({}, [request("GONE", "y", if_known=True)], tree=tree)
    assert "depends on NET" in why(tree, {}, request("FILTER", "y", if_known=True))


def test_another_member_of_a_choice(tree: Path) -> None:
    said = why(tree, {"LZ4": "y"}, request("GZIP", "y", line=1), request("LZ4", "y", line=2))
    assert "of this choice CONFIG_LZ4 was taken, asked for by some.config:2" in said


def test_something_selects_it(tree: Path) -> None:
    said = why(tree, {"HIDDEN": "y", "PICKER": "y", "NET": "y"}, request("HIDDEN", "n"))
    assert "CONFIG_PICKER=y selects it (Kconfig:25)" in said


def test_a_symbol_that_nobody_can_set(tree: Path) -> None:
    said = why(tree, {}, request("HIDDEN", "y"))
    assert "nobody can set it by hand" in said
    assert "CONFIG_PICKER" in said
    assert "can be set only if NET" in why(tree, {}, request("PICKER", "y"))


def test_a_dependency_that_nobody_can_set(tree: Path) -> None:
    assert "ARCH_HAS, which is n and cannot be set by hand" in why(
        tree, {}, request("NEEDS_ARCH", "y")
    )


@pytest.mark.parametrize(
    ("symbol", "value", "right"),
    [
        ("NET", "m", "ask for y"),
        ("NET", "4", "give it y, m or n"),
        ("NAME", "y", 'give it a "quoted string"'),
        ("SIZE", '"4"', "give it a number"),
    ],
)
def test_a_value_of_the_wrong_type(tree: Path, symbol: str, value: str, right: str) -> None:
    assert right in why(tree, {}, request(symbol, value))


def test_a_number_out_of_its_range(tree: Path) -> None:
    assert "became 10: the value is out of its range" in why(
        tree, {"SIZE": "10"}, request("SIZE", "99")
    )


def test_all_misses_are_told_at_once(tree: Path) -> None:
    said = why(tree, {}, request("FILTER", "y", line=1), request("NOPE", "y", line=2))
    assert len(said.splitlines()) == 2
    assert "some.config:2: CONFIG_NOPE=y" in said
