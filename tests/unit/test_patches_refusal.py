# SPDX-License-Identifier: GPL-2.0-only
"""A patch that does not apply is refused with patch, file, hunk and the lines that differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from sources_kit import DEV_C, FILES, change, create, write_tree

from lab.errors import UserError
from lab.kernel.apply import refuse_links, stage
from lab.kernel.series import PatchSeries, make_patch


def apply(
    tmp_path: Path, *texts: str, tree: dict[str, str] | None = None, **options: object
) -> Path:
    """Apply patches to a tree; where the touched files are afterwards."""
    root = write_tree(tmp_path / "tree", {**FILES, **(tree or {})})
    patches = tuple(
        make_patch(name=f"{n}.patch", file=tmp_path / f"{n}.patch", text=text, **options)  # type: ignore[arg-type]
        for n, text in enumerate(texts, 1)
    )
    series = PatchSeries(name="s", patches=patches)
    into = tmp_path / "staged"
    into.mkdir()

    def base(name: str) -> Path | None:
        return root / name if (root / name).is_file() else None

    stage(series, base, into, version="6.12.117")
    return into


def refusal(tmp_path: Path, *texts: str, tree: dict[str, str] | None = None) -> UserError:
    with pytest.raises(UserError) as caught:
        apply(tmp_path, *texts, tree=tree)
    return caught.value


def test_applies(tmp_path: Path) -> None:
    staged = apply(tmp_path, change("int line20;", "int twenty;"))
    assert (staged / "net/core/dev.c").read_text() == DEV_C.replace("line20", "twenty")


def test_applies_in_order(tmp_path: Path) -> None:
    staged = apply(tmp_path, change("int line20;", "int a;"), change("int a;", "int b;"))
    assert "int b;" in (staged / "net/core/dev.c").read_text()


def test_applies_in_reverse(tmp_path: Path) -> None:
    staged = apply(tmp_path, change("int a;", "int line20;"), reverse=True)
    assert "int a;" in (staged / "net/core/dev.c").read_text()


def test_without_directories_to_strip(tmp_path: Path) -> None:
    text = change("int line20;", "int a;").replace("a/net", "net").replace("b/net", "net")
    assert "int a;" in (apply(tmp_path, text, strip=0) / "net/core/dev.c").read_text()


def test_creates_renames_deletes_and_changes_modes(tmp_path: Path) -> None:
    rename = (
        "diff --git a/net/core/sock.c b/net/core/socket.c\nsimilarity index 100%\n"
        "rename from net/core/sock.c\nrename to net/core/socket.c\n"
    )
    delete = (
        "diff --git a/include/linux/net.h b/include/linux/net.h\ndeleted file mode 100644\n"
        "--- a/include/linux/net.h\n+++ /dev/null\n@@ -1 +0,0 @@\n-int net;\n"
    )
    mode = "diff --git a/Kbuild b/Kbuild\nold mode 100644\nnew mode 100755\n"
    staged = apply(tmp_path, create("a/b.c", "int b;"), rename, delete, mode)
    found = {str(path.relative_to(staged)) for path in staged.rglob("*") if path.is_file()}
    assert found == {"a/b.c", "net/core/socket.c", "Kbuild"}
    assert (staged / "Kbuild").stat().st_mode & 0o111


def test_a_shifted_hunk_applies_and_is_told(tmp_path: Path) -> None:
    series = PatchSeries(
        name="s",
        patches=(make_patch(name="a", file=tmp_path, text=change("int line20;", "int a;")),),
    )
    root = write_tree(tmp_path / "tree", {"net/core/dev.c": "int more;\n" * 5 + DEV_C})
    (tmp_path / "staged").mkdir()
    (told,) = stage(series, lambda name: root / name, tmp_path / "staged", version="6.12.117")
    assert (told.file, told.hunk, told.lines) == ("net/core/dev.c", 1, 5)


def test_other_context_is_not_guessed_away(tmp_path: Path) -> None:
    """One line of context differs: GNU patch would let it pass with fuzz 1."""
    error = refusal(
        tmp_path,
        change("int line20;", "int a;"),
        tree={"net/core/dev.c": DEV_C.replace("int line23;", "long line23;")},
    )
    assert "patch 1.patch: hunk 1 of 1" in error.what
    assert "net/core/dev.c of Linux 6.12.117" in error.what
    assert "patch       : int line23;" in error.what
    assert "tree      23: long line23;" in error.what
    assert (error.file, error.line) == (tmp_path / "1.patch", 3)


def test_white_space_is_not_guessed_away(tmp_path: Path) -> None:
    error = refusal(
        tmp_path,
        change("int line20;", "int a;"),
        tree={"net/core/dev.c": DEV_C.replace("int line21;", "int\tline21;")},
    )
    assert "only white space differs" in error.what and r"'int\tline21;\n'" in error.what


def test_the_second_hunk_is_named(tmp_path: Path) -> None:
    first, second = change("int line10;", "int a;", line=10), change("int b;", "int c;", line=30)
    error = refusal(tmp_path, first + second.split("\n", 2)[2])
    assert "hunk 2 of 2" in error.what and "tree      30: int line30;" in error.what
    assert error.line == 12


def test_the_right_patch_is_named(tmp_path: Path) -> None:
    good = change("int line20;", "int a;")
    error = refusal(tmp_path, good, change("int line20;", "int b;"))
    assert "patch 2.patch" in error.what and "int a;" in error.what


def test_a_patch_that_is_in_already(tmp_path: Path) -> None:
    error = refusal(tmp_path, change("int sixtysix;", "int line20;"))
    assert "is in net/core/dev.c of Linux 6.12.117 already" in error.what


def test_far_from_everything(tmp_path: Path) -> None:
    error = refusal(
        tmp_path, change("int line20;", "int a;"), tree={"net/core/dev.c": "static void f(void);\n"}
    )
    assert "none of its 7 lines" in error.what


def test_no_such_file(tmp_path: Path) -> None:
    error = refusal(tmp_path, change("int line20;", "int a;", file="net/core/gone.c"))
    assert "changes net/core/gone.c, which is not in Linux 6.12.117" in error.what


def test_file_there_already(tmp_path: Path) -> None:
    error = refusal(tmp_path, create("net/core/sock.c", "int s;"))
    assert "creates net/core/sock.c, which Linux 6.12.117 has already" in error.what


def test_missing_newline_at_the_end(tmp_path: Path) -> None:
    text = (
        "--- a/Kbuild\n+++ b/Kbuild\n@@ -1 +1 @@\n-obj-y := net/\n"
        "\\ No newline at end of file\n+obj-y := net/ fs/\n"
    )
    assert "Kbuild of Linux" in refusal(tmp_path, text).what


def test_the_users_git_settings_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[apply]\n\tignoreWhitespace = change\n\twhitespace = fix\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("HOME", str(tmp_path))
    error = refusal(
        tmp_path,
        change("int line20;", "int a;"),
        tree={"net/core/dev.c": DEV_C.replace("int line21;", "int\tline21;")},
    )
    assert "only white space differs" in error.what


def test_inside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git apply ignores files outside of its directory if it finds a repository above."""
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / ".git" / "refs").mkdir()
    (tmp_path / ".git" / "objects").mkdir()
    staged = apply(tmp_path, change("int line20;", "int a;"))
    assert "int a;" in (staged / "net/core/dev.c").read_text()


def test_through_a_link(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree")
    (tree / "alias").symlink_to("net")
    text = change("int line20;", "int a;", file="alias/core/dev.c")
    series = PatchSeries(name="s", patches=(make_patch(name="a", file=tmp_path, text=text),))
    with pytest.raises(UserError, match="through the symbolic link `alias`"):
        refuse_links(series, tree)
