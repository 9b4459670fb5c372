# SPDX-License-Identifier: GPL-2.0-only
"""lab.yaml: what is accepted, and what is said of what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab import manifest
from lab.errors import UserError

SHIPPED = """\
default_kernel: "6.12"
default_image: debian
kernels:
  "6.12":
    source: {debian: linux-source-6.12, suite: bookworm-security}
    patches: [xdplua]
flavours:
  default:
    fragments: [boot]
series:
  xdplua: {path: kernel-patches/xdplua}
modules:
  lunatik: {path: lunatik-src, lua: "5.5.1"}
lua:
  "5.5.1": {pypi: lupa, version: "2.8", member: third-party/lua55}
images:
  debian: {recipe: vm-images/debian.yaml}
suites:
  smoke: [tests/e2e/smoke]
"""


@pytest.fixture(autouse=True)
def nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LAB_MANIFEST", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "lab.yaml").write_text(SHIPPED)
    return tmp_path


def refused(root: Path, old: str, new: str) -> UserError:
    """The error after an edit of the shipped file."""
    assert old in SHIPPED
    (root / "lab.yaml").write_text(SHIPPED.replace(old, new))
    with pytest.raises(UserError) as caught:
        manifest.read(root=root)
    assert caught.value.file == root / "lab.yaml"
    return caught.value


def test_the_shipped_one_is_good() -> None:
    shipped = manifest.read()
    assert shipped.default_kernel in shipped.kernels
    assert {"default", "debug"} <= set(shipped.flavours)
    assert [name for name, one in shipped.flavours.items() if one.shared] == ["debug"]


def test_values_and_places(root: Path) -> None:
    read = manifest.read(root=root)
    kernel = read.kernel("6.12")
    assert isinstance(kernel.source, manifest.DebianSource)
    assert kernel.source.suite == "bookworm-security"
    assert str(kernel.where("source")) == f"{root}/lab.yaml:5"
    assert kernel.where("patches", 0).line == 6
    assert read.module_tree("lunatik").resolve("path") == root / "lunatik-src"


def test_whether_a_machine_is_shared_is_a_yes_or_no(root: Path) -> None:
    error = refused(root, "    fragments: [boot]", "    fragments: [boot]\n    shared: often")
    assert error.line == 10
    assert "`shared` must be true or false" in str(error)


def test_a_flavours_suite_must_be_there(root: Path) -> None:
    error = refused(root, "    fragments: [boot]", "    fragments: [boot]\n    suites: [smokey]")
    assert error.line == 10
    assert "there is no suite `smokey`" in str(error)
    assert "smoke" in (error.right or "")


def test_typo_gets_a_suggestion(root: Path) -> None:
    error = refused(root, "    patches: [xdplua]", "    patchs: [xdplua]")
    assert error.line == 6
    assert "`patchs`" in error.what
    assert error.right == "did you mean `patches`?"
    assert error.exit_status == 2


def test_typo_at_the_top(root: Path) -> None:
    error = refused(root, "suites:", "suits:")
    assert (error.line, error.right) == (18, "did you mean `suites`?")


def test_unquoted_version(root: Path) -> None:
    error = refused(root, '  "6.12":', "  6.10:")
    assert error.line == 4
    assert '"6.10"' in str(error)


def test_duplicate_key(root: Path) -> None:
    error = refused(root, "    patches: [xdplua]", "    patches: [xdplua]\n    patches: []")
    assert error.line == 7


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("default_image: debian\n", "", 1, ["default_image", "missing"]),
        (", suite: bookworm-security", "", 5, ["suite", "missing"]),
        ("{debian: linux-source-6.12, suite: bookworm-security}", "{}", 5, ["none", "{path}"]),
        ("suite: bookworm-security", "path: /x", 5, ["debian and path"]),
        ("{debian: linux-source-6.12, suite: bookworm-security}", "x.tar", 5, ["{path}"]),
        ("suite: bookworm-security", "suit: bookworm", 5, ["suit", "did you mean `suite`?"]),
        ("bookworm-security", '"no such"', 5, ["`suite`", "`no such` is no name that Debian"]),
        ("linux-source-6.12,", '"",', 5, ["`debian`", "`` is no name that Debian"]),
        ("[xdplua]", "xdplua", 6, ["a list is expected", "[xdplua]"]),
        ("[xdplua]", "[xdplau]", 6, ["no series `xdplau`", "did you mean `xdplua`?"]),
        ("[xdplua]", "[7]", 6, ["text", 'quote it: "7"']),
        ("fragments: [boot]", "fragments: [boot]\n    memory: big", 10, ["memory", "whole number"]),
        ("fragments: [boot]", "fragments: [boot]\n    memory: 8", 10, ["`memory`", "64"]),
        ("fragments: [boot]", "fragments: [boot]\n    patience: 0", 10, ["`patience`"]),
        *(
            (
                "fragments: [boot]",
                f"fragments: [boot]\n    patience: {value}",
                10,
                ["patience" if value.startswith("1") else value],
            )
            for value in ("1001", "1" + "0" * 20, "1e20", ".inf", ".nan", "1.5e20")
        ),
        ('"6.12"\n', '"6.13"\n', 1, ["no kernel `6.13`", "did you mean `6.12`?"]),
        ('lua: "5.5.1"', 'lua: "5.4"', 13, ["no Lua `5.4`"]),
        ("default:", "all:", 8, ["`all` means all"]),
        ("default:", "../x:", 8, ["cannot be a name"]),
        ("xdplua: {path", "xdplua: {git: x, path", 11, ["{path} or {git, range}"]),
        ("kernels:\n", "kernels: 3\nmodels:\n", 4, ["`models` is unknown"]),
        ("suites:\n  smoke:", "suites:\n  - smoke:", 18, ["`suites` must be a mapping"]),
        ("[tests/e2e/smoke]", "~", 19, ["`smoke` must be a list"]),
        ("[tests/e2e/smoke]", "[]", 19, ["the suite `smoke` is empty", "tests/e2e/smoke"]),
    ],
)
def test_refused(root: Path, old: str, new: str, line: int, words: list[str]) -> None:
    error = refused(root, old, new)
    for word in words:
        assert word in str(error)
    assert error.line == line


def test_sha256_must_be_one(root: Path) -> None:
    error = refused(
        root,
        "{debian: linux-source-6.12, suite: bookworm-security}",
        "{tarball: linux.tar.xz, sha256: beef}",
    )
    assert "`sha256`" in error.what


def test_the_key_of_a_source_that_is_wrong_not_its_kind(root: Path) -> None:
    error = refused(
        root,
        "{debian: linux-source-6.12, suite: bookworm-security}",
        "\n      git: ../linux\n      ref: 612",
    )
    assert error.line == 7
    assert str(error).endswith('`ref` must be text; quote it: "612"')


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("{git: ../linux, ref: v6.12}", manifest.GitSource),
        ("{tarball: l.tar.xz, sha256: " + "a" * 64 + "}", manifest.TarballSource),
        ("{path: ../linux}", manifest.PathSource),
    ],
)
def test_kinds_of_source(root: Path, source: str, kind: type) -> None:
    (root / "own.yaml").write_text(f'kernels: {{"6.12": {{source: {source}}}}}\n')
    read = manifest.read(root / "own.yaml", root=root)
    assert type(read.kernel("6.12").source) is kind
    assert read.kernel("6.12").patches == ("xdplua",)


def test_own_file_is_layered(root: Path) -> None:
    (root / "lab.local.yaml").write_text("kernels:\n  mine: {source: {path: ../mine}}\n")
    read = manifest.read(root=root)
    assert set(read.kernels) == {"6.12", "mine"}
    source = read.kernel("mine").source
    assert isinstance(source, manifest.PathSource)
    assert source.resolve("path") == root / "../mine"
    assert source.where("path").file == root / "lab.local.yaml"


def test_paths_are_taken_from_the_file_that_names_them(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    own = elsewhere / "own.yaml"
    own.write_text("modules:\n  driver: {path: driver}\n")
    read = manifest.read(own, root=root)
    assert read.module_tree("driver").resolve("path") == elsewhere / "driver"
    assert read.module_tree("lunatik").resolve("path") == root / "lunatik-src"


def test_a_home_that_nobody_has(root: Path) -> None:
    (root / "own.yaml").write_text("modules:\n  driver: {path: ~no-such-user/driver}\n")
    tree = manifest.read(root / "own.yaml", root=root).module_tree("driver")
    with pytest.raises(UserError, match="~no-such-user") as caught:
        tree.resolve("path")
    assert (caught.value.file, caught.value.line) == (root / "own.yaml", 2)


def test_error_in_the_own_file_names_it(root: Path) -> None:
    (root / "lab.local.yaml").write_text("\ndefault_kernel: 6.10\n")
    with pytest.raises(UserError) as caught:
        manifest.read(root=root)
    assert str(caught.value).startswith(f"{root}/lab.local.yaml:2: ")


def test_environment_names_the_own_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "lab.local.yaml").write_text("typo: 1\n")
    (root / "other.yaml").write_text("suites: {mine: [x]}\n")
    monkeypatch.setenv("LAB_MANIFEST", str(root / "other.yaml"))
    assert manifest.read(root=root).suite("mine") == ("x",)


def test_lookup_of_an_unknown_name(root: Path) -> None:
    read = manifest.read(root=root)
    with pytest.raises(UserError, match=r"no kernel `6.21`; did you mean `6.12`"):
        read.kernel("6.21")
    with pytest.raises(UserError, match="no flavour `zzz`; there is `default`"):
        read.flavour("zzz")
