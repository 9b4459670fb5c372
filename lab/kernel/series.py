# SPDX-License-Identifier: GPL-2.0-only
"""Patch series as people keep them: quilt, mbox, maildir, single files, git ranges."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from lab.errors import UserError
from lab.kernel.diff import touched_files

KERNEL_LINE = re.compile(r"\d+\.\d+")


@dataclass(frozen=True, kw_only=True)
class Patch:
    """One patch, known to be well-formed, not yet known to apply.

    Attributes:
        name: its file name, its mail's subject or its commit.
        file: where it stands: a patch file, an mbox, a mail, a repository.
        text: description and diff.
        files: every path that it reads or writes, relative to the tree, sorted.
        key: content key of what it does; its description does not count.
        offset: how many lines of ``file`` stand before ``text``; None if the
            text does not stand there as it is (an encoded mail, a commit).
        strip: how many leading directories its paths have too many (patch -p).
        reverse: it is to be undone, not done (patch -R).
    """

    name: str
    file: Path
    text: str
    files: tuple[str, ...]
    key: str
    offset: int | None = 0
    strip: int = 1
    reverse: bool = False

    def line(self, line: int | None) -> int | None:
        """The line of ``file`` at which a line of ``text`` stands, both from 1."""
        return None if self.offset is None or line is None else self.offset + line


@dataclass(frozen=True, kw_only=True)
class PatchSeries:
    """Patches in the order in which they apply.

    Attributes:
        name: the topic, or what the user typed.
        patches: may be empty.
    """

    name: str
    patches: tuple[Patch, ...]

    @property
    def key(self) -> str:
        """Content key; the same patches under another name have the same one."""
        return _digest([patch.key for patch in self.patches])

    def __add__(self, other: PatchSeries) -> PatchSeries:
        """This series, then another on top of it."""
        name = "+".join(part for part in (self.name, other.name) if part)
        return PatchSeries(name=name, patches=self.patches + other.patches)


NO_PATCHES = PatchSeries(name="", patches=())


def make_patch(
    *,
    name: str,
    file: Path,
    text: str,
    offset: int | None = 0,
    strip: int = 1,
    reverse: bool = False,
) -> Patch:
    """A patch out of its text.

    Raises:
        UserError: it is no patch, holds no change, or reaches out of the tree.
    """
    files, body = touched_files(text, name=name, file=file, offset=offset, strip=strip)
    return Patch(
        name=name,
        file=file,
        text=text,
        files=files,
        key=_digest([body, strip, reverse]),
        offset=offset,
        strip=strip,
        reverse=reverse,
    )


def load_series(what: Path | str, *, line: str) -> PatchSeries:
    """Read a series.

    Args:
        what: a quilt directory, a topic directory with one of those for each
            kernel line, an mbox, a maildir, a .patch file, or a git range
            ``A..B`` (of the repository here) or ``DIRECTORY:A..B``.
        line: the kernel line that a topic directory is asked for, "6.12".

    Raises:
        UserError: nothing like that is there, or a patch in it is malformed.
    """
    # gitrange and mail build Patch records, hence not imported at the top.
    from lab.kernel.gitrange import load_range
    from lab.kernel.mail import is_mail, load_maildir, load_mbox

    path = Path(what)
    if what == "":  # which as a path is the directory that we stand in
        raise UserError("a patch series without a name", right="name one, or leave --patches out")
    if not path.exists():
        # A branch's name may have slashes; a part that is nothing but `..` leads upwards.
        if isinstance(what, str) and any(".." in part and part != ".." for part in path.parts):
            return load_range(what)
        raise UserError(
            "there is no such patch series",
            file=path,
            right="name a series of lab.yaml, a directory, an mbox, a .patch file or a git range",
        )
    if path.is_file():
        if is_mail(path):
            return load_mbox(path)
        return PatchSeries(name=path.stem, patches=(load_patch(path),))
    if (path / "series").is_file():
        return load_quilt(path)
    if (path / "cur").is_dir() and (path / "new").is_dir():
        return load_maildir(path)
    return _load_topic(path, line=line)


def load_patch(path: Path, *, strip: int = 1, reverse: bool = False) -> Patch:
    """One patch file."""
    text = decode(content(path), file=path)
    return make_patch(name=path.name, file=path, text=text, strip=strip, reverse=reverse)


def load_quilt(directory: Path) -> PatchSeries:
    """A directory with a ``series`` file: a patch a line, ``-pN`` and ``-R`` after it."""
    series = directory / "series"
    patches = []
    for number, line in enumerate(decode(content(series), file=series).splitlines(), 1):
        try:
            words = shlex.split(line, comments=True)
        except ValueError as error:
            raise UserError(f"cannot be read: {error}", file=series, line=number) from None
        if words:
            patches.append(_series_entry(series, number, words))
    return PatchSeries(name=directory.name, patches=tuple(patches))


def content(file: Path) -> bytes:
    """All bytes of a file that the user named.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"cannot be read: {error.strerror}", file=file) from None


def decode(data: bytes, *, file: Path) -> str:
    """Text that must be UTF-8; an error says in which line it is not."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"byte 0x{data[error.start]:02x} is not UTF-8",
            file=file,
            line=data.count(b"\n", 0, error.start) + 1,
            right="save the file as UTF-8",
        ) from None


def _series_entry(series: Path, number: int, words: list[str]) -> Patch:
    name, *options = words
    strip, reverse = 1, False
    for option in options:
        if re.fullmatch(r"-p\d+", option):
            strip = int(option[2:])
        elif option == "-pab":
            strip = 1
        elif option == "-R":
            reverse = True
        else:
            raise UserError(
                f"`{option}` after `{name}` is not understood",
                file=series,
                line=number,
                right="after a patch may stand -pN, -R or a # comment",
            )
    path = series.parent / name
    if not path.is_file():
        raise UserError(
            f"the patch `{name}` is not there",
            file=series,
            line=number,
            right=f"add {path} or take the line out",
        )
    patch = load_patch(path, strip=strip, reverse=reverse)
    return Patch(**{**vars(patch), "name": name})


def _load_topic(path: Path, *, line: str) -> PatchSeries:
    if not path.is_dir():
        raise UserError("is no patch series: it is neither a file nor a directory", file=path)
    lines = [
        entry.name
        for entry in path.iterdir()
        if entry.is_dir() and KERNEL_LINE.fullmatch(entry.name)
    ]
    if line in lines:
        return PatchSeries(name=path.name, patches=load_series(path / line, line=line).patches)
    if lines:
        lines.sort(key=lambda name: [int(part) for part in name.split(".")])
        raise UserError(
            f"there are no patches for kernel {line}",
            file=path,
            right=f"it has them for {', '.join(lines)}; add {path / line / 'series'}",
        )
    raise UserError(
        "is no patch series: it has neither a `series` file nor the directories of a maildir",
        file=path,
        right="for a directory of patches write their names into `series`, one a line, in order",
    )


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:20]
