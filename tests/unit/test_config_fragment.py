# SPDX-License-Identifier: GPL-2.0-only
"""Fragments: what they ask for, of which kernels, and what is wrong with them."""

from pathlib import Path

import pytest

from lab import manifest
from lab.errors import UserError
from lab.kernel.config import FRAGMENTS, fragment_file, gather, merged
from lab.kernel.fragment import read_config, read_fragment
from lab.kernel.kunit import FRAGMENT as KUNIT


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def asked(path: Path, **options: object) -> dict[str, str]:
    requests = read_fragment(path, **{"version": "6.12.1", **options})  # type: ignore[arg-type]
    return {request.symbol: request.value for request in requests}


def test_a_fragment_is_read_with_its_lines(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.config",
        '# a reason\nCONFIG_A=y\n\n# CONFIG_B is not set\nCONFIG_C="x y"\nCONFIG_D=0x10\n',
    )
    requests = read_fragment(file, version="6.12.1")
    assert [(r.symbol, r.value, r.line) for r in requests] == [
        ("A", "y", 2),
        ("B", "n", 4),
        ("C", '"x y"', 5),
        ("D", "0x10", 6),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("CONFIG_A", "no configuration line"),
        ("A=y", "no configuration line"),
        ("CONFIG_A=yes", "cannot have the value `yes`"),
        ("CONFIG_A=y # why", "cannot have the value `y # why`"),
        ('CONFIG_A="open', "cannot have the value"),
        ("# lab: since 6.2", "knows no directive `since`"),
        ("# lab: from", "wants a kernel line"),
        ("# lab: from tomorrow", "wants a kernel line"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = write(tmp_path / "a.config", f"\n{line}\n")
    with pytest.raises(UserError) as caught:
        read_fragment(file, version="6.12.1")
    assert (caught.value.file, caught.value.line) == (file, 2)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("6.1.192", {"OLD", "ALWAYS"}),
        ("6.2.0", {"NEW", "OLD", "ALWAYS"}),
        ("6.10.3", {"NEW", "ALWAYS"}),  # 6.10 is newer than 6.4
        ("10.0.0", {"NEW", "ALWAYS"}),
    ],
)
def test_directives_choose_kernels_by_line(
    tmp_path: Path, version: str, expected: set[str]
) -> None:
    file = write(
        tmp_path / "a.config",
        "# lab: from 6.2\n# text\nCONFIG_NEW=y\n\n"
        "# lab: before 6.4\nCONFIG_OLD=y\n\nCONFIG_ALWAYS=y\n",
    )
    assert set(asked(file, version=version)) == expected


def test_a_directive_ends_with_its_paragraph(tmp_path: Path) -> None:
    file = write(tmp_path / "a.config", "# lab: if-known\nCONFIG_A=y\n\nCONFIG_B=y\n")
    requests = read_fragment(file, version="6.12.1")
    assert [r.if_known for r in requests] == [True, False]


def test_preferences_yield_to_the_users_config(tmp_path: Path) -> None:
    file = write(tmp_path / "a.config", "# lab: preference\nCONFIG_A=y\n\nCONFIG_B=y\n")
    assert set(asked(file)) == {"A", "B"}
    assert set(asked(file, own_config=True)) == {"B"}


def test_a_later_fragment_that_disagrees_is_an_error(tmp_path: Path) -> None:
    first = write(tmp_path / "a.config", "CONFIG_A=y\n")
    second = write(tmp_path / "b.config", "\nCONFIG_A=n\n")
    with pytest.raises(UserError) as caught:
        gather([first, second], version="6.12.1", own_config=False)
    assert (caught.value.file, caught.value.line) == (first, 1)
    assert f"{second}:2" in str(caught.value)


def test_a_later_fragment_may_override_if_it_says_so(tmp_path: Path) -> None:
    first = write(tmp_path / "a.config", "CONFIG_A=y\nCONFIG_B=y\n")
    second = write(tmp_path / "b.config", "# lab: override\nCONFIG_A=n\n")
    requests = gather([first, second], version="6.12.1", own_config=False)
    assert [(r.symbol, r.value) for r in requests] == [("B", "y"), ("A", "n")]


def test_requests_replace_the_base_and_come_after_it(tmp_path: Path) -> None:
    file = write(tmp_path / "a.config", "CONFIG_LZ4=y\n# CONFIG_XZ is not set\n")
    text = merged({"XZ": "y", "Z": "y"}, read_fragment(file, version="6.12.1"))
    assert text == "CONFIG_Z=y\nCONFIG_LZ4=y\n# CONFIG_XZ is not set\n"


def test_a_config_is_read_whole(tmp_path: Path) -> None:
    file = write(tmp_path / ".config", "#\n# Title\n#\nCONFIG_A=m\n# CONFIG_B is not set\n")
    assert read_config(file) == {"A": "m", "B": "n"}


def test_a_missing_fragment_says_which_there_are() -> None:
    with pytest.raises(UserError, match=r"no configuration fragment `nett`.*net"):
        fragment_file("nett", beside=Path())


def test_a_path_is_taken_from_the_file_that_names_it(tmp_path: Path) -> None:
    assert fragment_file("my.config", beside=tmp_path) == tmp_path / "my.config"


@pytest.mark.parametrize("version", ["6.1.192", "6.12.117", "7.3.4"])
@pytest.mark.parametrize("flavour", manifest.read().flavours)
def test_the_fragments_of_a_shipped_flavour_agree(flavour: str, version: str) -> None:
    names = manifest.read().flavours[flavour].fragments
    files = [fragment_file(name, beside=Path()) for name in (*names, KUNIT)]
    assert len(gather(files, version=version, own_config=False)) > 200


def test_every_shipped_fragment_is_somebodys() -> None:
    flavours = manifest.read().flavours.values()
    used = {name for flavour in flavours for name in flavour.fragments}
    assert {file.stem for file in FRAGMENTS.glob("*.config")} == used | {KUNIT}
