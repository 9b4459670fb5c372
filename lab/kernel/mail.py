# SPDX-License-Identifier: GPL-2.0-only
"""Patches that came as mail: an mbox, a maildir, one saved mail."""

from __future__ import annotations

import email
import email.errors
import email.header
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from lab.errors import UserError
from lab.kernel.diff import DIFF_START
from lab.kernel.series import Patch, PatchSeries, content, decode, make_patch

# What git mailsplit looks for; "From " at the start of a sentence has no clock in it.
MBOX_FROM = re.compile(rb"^From \S+ .*\d\d:\d\d:\d\d.*\d{4}")
HEADER = re.compile(rb"^(?:From|Subject|Date|Message-ID|Return-Path|Received): ", re.IGNORECASE)
NUMBERED = re.compile(r"\[(?P<tags>[^\]]*?)\b(?P<number>\d+)/(?P<total>\d+)\s*\]")
VERSION = re.compile(r"\bv(\d+)\b", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class _Mail:
    file: Path
    line: int
    """Line of the file at which the mail begins, from 1."""
    raw: bytes

    @property
    def message(self) -> Message:
        return email.message_from_bytes(self.raw)

    @property
    def subject(self) -> str:
        words = str(self.message.get("Subject", ""))
        # A name for people: one that cannot be decoded is shown as it came.
        with suppress(LookupError, ValueError, email.errors.HeaderParseError):
            words = str(email.header.make_header(email.header.decode_header(words)))
        return " ".join(words.split())


def is_mail(path: Path) -> bool:
    """Whether a file is an mbox or a saved mail rather than a bare patch."""
    first = content(path).partition(b"\n")[0]
    return bool(MBOX_FROM.match(first) or HEADER.match(first))


def load_mbox(path: Path) -> PatchSeries:
    """Every patch of an mbox, in their own numbering or else as they stand."""
    mails = list(_split(path))
    return PatchSeries(name=path.stem, patches=_patches(mails, where=path))


def load_maildir(path: Path) -> PatchSeries:
    """Every patch of a maildir, in their own numbering or else in that of the file names."""
    files = sorted((*path.glob("cur/*"), *path.glob("new/*")), key=lambda file: file.name)
    mails = [_Mail(file=file, line=1, raw=content(file)) for file in files]
    return PatchSeries(name=path.name, patches=_patches(mails, where=path))


def _split(path: Path) -> Iterator[_Mail]:
    lines = content(path).splitlines(keepends=True)
    # Mail that a Windows program saved; git am strips these carriage returns too.
    if all(line.endswith(b"\r\n") for line in lines):
        lines = [line[:-2] + b"\n" for line in lines]
    starts = [
        number
        for number, line in enumerate(lines)
        if MBOX_FROM.match(line) and (number == 0 or not lines[number - 1].strip())
    ] or [0]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield _Mail(file=path, line=start + 1, raw=b"".join(lines[start:end]))


def _patches(mails: list[_Mail], *, where: Path) -> tuple[Patch, ...]:
    """Patches of mails: cover letters and talk have no diff and are passed over."""
    found = [(mail, patch) for mail in mails if (patch := _patch(mail)) is not None]
    if not found:
        raise UserError("no mail in it holds a patch", file=where)
    numbered = [NUMBERED.search(mail.subject) for mail, _ in found]
    if not all(numbered):
        return tuple(patch for _, patch in found)
    order: dict[int, Patch] = {}
    for (mail, patch), number in zip(found, numbered, strict=True):
        assert number is not None
        place = int(number["number"])
        if place in order:
            raise UserError(
                f"`{mail.subject}` is the second patch {place}/{number['total']}, "
                f"after `{order[place].name}`",
                file=mail.file,
                line=mail.line,
                right="keep one version of the series in it",
            )
        order[place] = patch
    _refuse_gap(order, numbered, where=where)
    return tuple(order[place] for place in sorted(order))


def _refuse_gap(
    order: dict[int, Patch], numbered: list[re.Match[str] | None], *, where: Path
) -> None:
    total = max(int(number["total"]) for number in numbered if number)
    gone = [str(place) for place in range(1, total + 1) if place not in order]
    # One mail out of a series is a choice; a hole in a series is an accident.
    if gone and len(order) > 1:
        raise UserError(
            f"patch {', '.join(gone)} of {total} is missing", file=where, right="add it"
        )


def _patch(mail: _Mail) -> Patch | None:
    message = mail.message
    for part in message.walk():
        if part.get_content_maintype() not in ("text", "application") or part.is_multipart():
            continue
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        text = _text(data, part, mail)
        if text is None or not DIFF_START.search(text):
            continue
        plain = not message.is_multipart() and data in mail.raw
        offset = None
        if plain:
            before = mail.raw[: mail.raw.index(data)] if data else b""
            offset = mail.line - 1 + before.count(b"\n")
        return make_patch(
            name=mail.subject or mail.file.name, file=mail.file, text=text, offset=offset
        )
    return None


def _text(data: bytes, part: Message, mail: _Mail) -> str | None:
    if b"\r\n" in data and data.count(b"\n") == data.count(b"\r\n"):
        data = data.replace(b"\r\n", b"\n")
    charset = part.get_content_charset() or "utf-8"
    try:
        return data.decode(charset)
    except UnicodeDecodeError:
        if DIFF_START.search(data.decode(errors="replace")) is None:
            return None
        if charset in ("utf-8", "us-ascii"):
            return decode(data, file=mail.file)
        raise UserError(
            f"the mail `{mail.subject}` is not in the character set that it names, {charset}",
            file=mail.file,
            line=mail.line,
        ) from None
    except (LookupError, ValueError):  # the latter for punycode, and a NUL in the name
        raise UserError(
            f"the mail `{mail.subject}` is in the unknown character set {charset!r}",
            file=mail.file,
            line=mail.line,
        ) from None
