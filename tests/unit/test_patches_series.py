# SPDX-License-Identifier: GPL-2.0-only
"""Series of every kind are read into the same record, and bad ones say where."""

from __future__ import annotations

import base64
import quopri
import re
from pathlib import Path

import pytest
from sources_kit import change, create, git, make_repository

from lab.errors import UserError
from lab.kernel.series import NO_PATCHES, load_series

ONE = change("int line20;", "int twenty;")
TWO = create("net/core/lua.c", "int lua;")


def mail(subject: str, diff: str, *, headers: str = "", body: str | None = None) -> str:
    if body is None:
        body = f"Because.\n---\n a | 1 +\n\n{diff}-- \n2.39.5\n\n"
    return (
        "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001\n"
        "From: A <a@b.invalid>\nDate: Mon, 2 Nov 2026 10:00:00 +0000\n"
        f"Subject: {subject}\n{headers}\n{body}"
    )


def names(path: Path | str, line: str = "6.12") -> list[str]:
    return [patch.name for patch in load_series(path, line=line).patches]


def refusal(path: Path | str, line: str = "6.12") -> UserError:
    with pytest.raises(UserError) as caught:
        load_series(path, line=line)
    return caught.value


def write_quilt(directory: Path, series: str = "one.patch\ntwo.patch\n") -> Path:
    directory.mkdir(parents=True)
    (directory / "one.patch").write_text(ONE)
    (directory / "two.patch").write_text(TWO)
    (directory / "series").write_text(series)
    return directory


def test_quilt_keeps_the_order_and_the_comments_out(tmp_path: Path) -> None:
    quilt = write_quilt(tmp_path / "q", "# topic\n\ntwo.patch\none.patch -p1 # why\n")
    assert names(quilt) == ["two.patch", "one.patch"]


def test_quilt_options(tmp_path: Path) -> None:
    quilt = write_quilt(tmp_path / "q", "one.patch -p2 -R\n")
    (patch,) = load_series(quilt, line="6.12").patches
    assert (patch.strip, patch.reverse, patch.files) == (2, True, ("core/dev.c",))


def test_quilt_unknown_option(tmp_path: Path) -> None:
    error = refusal(write_quilt(tmp_path / "q", "one.patch\ntwo.patch --fuzz=3\n"))
    assert error.line == 2 and "--fuzz=3" in error.what


def test_quilt_names_a_missing_patch(tmp_path: Path) -> None:
    error = refusal(write_quilt(tmp_path / "q", "one.patch\nthree.patch\n"))
    assert (error.file, error.line) == (tmp_path / "q" / "series", 2)
    assert "three.patch" in error.what


def test_topic_takes_the_kernel_line(tmp_path: Path) -> None:
    write_quilt(tmp_path / "xdp" / "6.12")
    write_quilt(tmp_path / "xdp" / "6.1", "one.patch\n")
    assert names(tmp_path / "xdp", "6.1") == ["one.patch"]
    assert load_series(tmp_path / "xdp", line="6.12").name == "xdp"


def test_topic_without_the_kernel_line_names_those_it_has(tmp_path: Path) -> None:
    for line in ("6.12", "6.1", "7.3"):
        write_quilt(tmp_path / "xdp" / line)
    error = refusal(tmp_path / "xdp", "6.18")
    assert "6.18" in error.what and "6.1, 6.12, 7.3" in (error.right or "")


def test_directory_that_is_no_series(tmp_path: Path) -> None:
    (tmp_path / "a.patch").write_text(ONE)
    assert "`series`" in refusal(tmp_path).what


def test_nothing_there(tmp_path: Path) -> None:
    assert "no such patch series" in refusal(tmp_path / "gone").what


def test_an_empty_name_is_not_where_we_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(write_quilt(tmp_path / "quilt"))
    assert refusal("").what == "a patch series without a name"


def test_single_patch_file(tmp_path: Path) -> None:
    path = tmp_path / "fix.patch"
    path.write_text("Why: because\n\n" + ONE)
    (patch,) = load_series(path, line="6.12").patches
    assert patch.files == ("net/core/dev.c",) and patch.line(3) == 3


def test_description_does_not_count_in_the_key(tmp_path: Path) -> None:
    (tmp_path / "a.patch").write_text("One reason\n\n" + ONE)
    (tmp_path / "b.patch").write_text("Another\n\n" + ONE)
    (tmp_path / "c.patch").write_text("One reason\n\n" + ONE.replace("twenty", "score"))
    a, b, c = (load_series(tmp_path / f"{name}.patch", line="6.12").key for name in "abc")
    assert a == b != c


def test_mbox_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    path = tmp_path / "series.mbox"
    path.write_text(
        mail("[PATCH 0/2] cover", "", body="Nothing but words.\n\n")
        + mail("[PATCH 2/2] second", TWO)
        + mail("[PATCH 1/2] first", ONE)
    )
    assert names(path) == ["[PATCH 1/2] first", "[PATCH 2/2] second"]


def test_mbox_lines_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "series.mbox"
    path.write_text(mail("[PATCH 1/2] first", ONE) + mail("[PATCH 2/2] second", TWO))
    second = load_series(path, line="6.12").patches[1]
    inside = second.text.splitlines().index("+++ b/net/core/lua.c") + 1
    assert second.line(inside) == path.read_text().splitlines().index("+++ b/net/core/lua.c") + 1


def test_mbox_with_a_hole_in_the_series(tmp_path: Path) -> None:
    path = tmp_path / "series.mbox"
    path.write_text(mail("[PATCH 1/3] first", ONE) + mail("[PATCH 3/3] third", TWO))
    assert "patch 2 of 3 is missing" in refusal(path).what


def test_mbox_with_two_versions(tmp_path: Path) -> None:
    path = tmp_path / "series.mbox"
    path.write_text(mail("[PATCH 1/1] first", ONE) + mail("[PATCH v2 1/1] first", ONE))
    assert "second patch 1/1" in refusal(path).what


def test_mbox_without_patches(tmp_path: Path) -> None:
    path = tmp_path / "talk.mbox"
    path.write_text(mail("Re: lunch", "", body="From now on at 12.\n\n"))
    assert "no mail in it holds a patch" in refusal(path).what


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64"])
def test_encoded_mail(tmp_path: Path, encoding: str) -> None:
    text = ("Grüße\n---\n" + ONE).encode()
    body = quopri.encodestring(text) if encoding == "quoted-printable" else base64.encodebytes(text)
    path = tmp_path / "one.mbox"
    head = "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n"
    path.write_text(
        mail("=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "", body=body.decode() + "\n",
             headers=head + f"Content-Transfer-Encoding: {encoding}\n")
    )  # fmt: skip
    (patch,) = load_series(path, line="6.12").patches
    assert patch.name == "Grüße" and patch.files == ("net/core/dev.c",)
    assert patch.line(1) is None


@pytest.mark.parametrize("charset", ["no-such", "punycode", "a\0b"])
def test_mail_in_no_character_set(tmp_path: Path, charset: str) -> None:
    path = tmp_path / "x.mbox"
    headers = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: 8bit\n"
    path.write_text(mail("[PATCH] one", ONE, headers=headers, body=f"ä\n---\n{ONE}"))
    error = refusal(path)
    assert (error.file, error.line) == (path, 1)
    assert "character set" in error.what


@pytest.mark.parametrize("subject", ["=?no-such?q?one?=", "=?utf-8?q?=FF?=", "=?utf-8?b?a?="])
def test_mail_whose_subject_cannot_be_decoded_keeps_it_as_it_came(
    tmp_path: Path, subject: str
) -> None:
    path = tmp_path / "x.mbox"
    path.write_text(mail(f"[PATCH] {subject}", ONE))
    assert names(path) == [f"[PATCH] {subject}"]


def test_mail_with_carriage_returns(tmp_path: Path) -> None:
    path = tmp_path / "dos.mbox"
    path.write_bytes(mail("[PATCH] one", ONE).replace("\n", "\r\n").encode())
    (patch,) = load_series(path, line="6.12").patches
    assert "\r" not in patch.text


def test_maildir(tmp_path: Path) -> None:
    for part in ("cur", "new", "tmp"):
        (tmp_path / "md" / part).mkdir(parents=True)
    (tmp_path / "md" / "new" / "1.a").write_text(mail("[PATCH 2/2] second", TWO).split("\n", 1)[1])
    (tmp_path / "md" / "cur" / "2.b:2,S").write_text(
        mail("[PATCH 1/2] first", ONE).split("\n", 1)[1]
    )
    assert names(tmp_path / "md") == ["[PATCH 1/2] first", "[PATCH 2/2] second"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    root = make_repository(tmp_path / "linux")
    for number in (1, 2):
        (root / "net/core/sock.c").write_text(f"int sock{number};\n")
        git(root, "commit", "--quiet", "--all", "--message", f"change {number}")
    return root


def test_git_range(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [name.split(" ", 1)[1] for name in names(f"{repository}:main~2..main")] == [
        "change 1",
        "change 2",
    ]
    monkeypatch.chdir(repository)
    assert len(names("main~1..main")) == 1
    git(repository, "branch", "topic/one", "main")
    assert len(names("main~1..topic/one")) == 1
    assert len(names("../linux:main~1..topic/one")) == 1


def test_git_range_ignores_the_users_diff_settings(repository: Path) -> None:
    before = load_series(f"{repository}:main~2..main", line="6.12").key
    git(repository, "config", "diff.noprefix", "true")
    git(repository, "config", "diff.context", "0")
    git(repository, "config", "color.diff", "always")
    assert load_series(f"{repository}:main~2..main", line="6.12").key == before


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("main~2..nope", "no commit `nope`"),
        ("main..main", "holds no commit"),
        ("main~2...main", "no order"),
    ],
)
def test_git_range_refused(repository: Path, text: str, what: str) -> None:
    assert what in str(refusal(f"{repository}:{text}"))


def test_a_way_up_is_no_range() -> None:
    assert "no such patch series" in refusal("../../nowhere/at/all").what


def test_neither_file_nor_directory() -> None:
    assert "neither a file nor a directory" in refusal("/dev/null").what


def test_git_range_with_a_merge(repository: Path) -> None:
    git(repository, "checkout", "--quiet", "-b", "side", "main~1")
    (repository / "new.c").write_text("int a;\n")
    git(repository, "add", "new.c")
    git(repository, "commit", "--quiet", "--message", "side")
    git(repository, "checkout", "--quiet", "main")
    git(repository, "merge", "--quiet", "--no-edit", "side")
    assert "holds the merge" in refusal(f"{repository}:main~2..main").what


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", None, "holds no diff"),
        ("just words\n", None, "holds no diff"),
        ("words\n\n" + ONE.replace("net/core", "../../etc"), 4, "outside of the kernel tree"),
        (ONE.replace("b/net/core/dev.c", "b/net/../../x.c"), 2, "outside of the kernel tree"),
        (ONE.replace("a/net/core/dev.c", "/etc/passwd"), 2, "outside of the kernel tree"),
        (create(".git/hooks/pre-commit", "exit"), 1, "outside of the kernel tree"),
        ("--- dev.c\n+++ dev.c\n@@ -1 +1 @@\n-a\n+b\n", 2, "has no more than 1 part"),
        ("diff --git a/l.png b/l.png\nindex 1..2 100644\nBinary files a/l.png and b/l.png differ\n",
         3, "does not carry its data"),
        (ONE.replace(" int line23;\n", ""), None, "is damaged"),
        (ONE.replace(" int line22;", "int line22;"), 10, "is damaged"),
    ],
)  # fmt: skip
def test_bad_patch(tmp_path: Path, text: str, line: int | None, what: str) -> None:
    path = tmp_path / "bad.patch"
    path.write_text(text)
    error = refusal(path)
    assert what in error.what and error.file == path
    if line is not None:
        assert error.line == line


def test_patch_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "latin1.patch"
    path.write_bytes(b"Gr\xfc\xdfe\n\n" + ONE.encode())
    error = refusal(path)
    assert error.line == 1 and "0xfc" in error.what


@pytest.mark.parametrize("kind", ["file", "quilt", "series", "maildir"])
def test_what_cannot_be_read_is_named(tmp_path: Path, kind: str) -> None:
    unreadable = Path("/proc/self/mem")  # for root, too: nothing is mapped at its start
    top = tmp_path / "series"
    for directory in ("cur", "new") if kind == "maildir" else (".",):
        (top / directory).mkdir(parents=True)
    file = top / {"file": "p.patch", "quilt": "p.patch", "maildir": "cur/1"}.get(kind, "series")
    file.symlink_to(unreadable)
    if kind == "quilt":
        (top / "series").write_text("p.patch\n")
    error = refusal(file if kind == "file" else top)
    assert (error.file, error.what) == (file, "cannot be read: Input/output error")


def test_series_add_up(tmp_path: Path) -> None:
    quilt = load_series(write_quilt(tmp_path / "q"), line="6.12")
    both = NO_PATCHES + quilt
    assert both.key == quilt.key and both.name == "q"
    assert len((quilt + quilt).patches) == 4
    assert re.fullmatch("[0-9a-f]{20}", quilt.key)
