# SPDX-License-Identifier: GPL-2.0-only
"""Configuration fragments: which symbols the lab asks for, and where it says why.

A fragment is the kernel's own format (``CONFIG_X=y``, ``# CONFIG_X is not
set``) with comments that give reasons.  A comment ``# lab: WORDS`` is a
directive for the lines after it, up to the next empty line:

    # lab: from 6.2           kernels of this line and newer
    # lab: before 6.4         kernels older than this line
    # lab: if-known           kernels that have such a symbol at all
    # lab: preference         only where the user brings no .config of their own
    # lab: override           takes the place of what an earlier fragment asked

Several words may stand in one directive.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import UserError

Version = tuple[int, int]

_ASSIGNMENT = re.compile(r"CONFIG_(\w+)=(.*)")
_UNSET = re.compile(r"# CONFIG_(\w+) is not set")
_DIRECTIVE = re.compile(r"#\s*lab:\s*(.*)")
_VALUE = re.compile(r'[ymn]|"(?:[^"\\]|\\.)*"|-?\d+|0[xX][0-9a-fA-F]+')
_LINE = re.compile(r"(\d+)\.(\d+)")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One symbol that somebody asks for.

    Attributes:
        symbol: without ``CONFIG_``.
        value: as in a .config: y, m, n, a number or a quoted string.
        file, line: who asks.
        if_known: a kernel without such a symbol is fine.
        override: an earlier request for another value gives way.
    """

    symbol: str
    value: str
    file: Path
    line: int
    if_known: bool = False
    override: bool = False

    @property
    def text(self) -> str:
        """The line as a .config has it."""
        return config_line(self.symbol, self.value)


@dataclass(frozen=True)
class _Scope:
    """What a directive says about the lines after it."""

    applies: bool = True
    if_known: bool = False
    override: bool = False


def config_line(symbol: str, value: str) -> str:
    """A .config line; ``n`` has a spelling of its own."""
    return f"# CONFIG_{symbol} is not set" if value == "n" else f"CONFIG_{symbol}={value}"


def version_pair(text: str) -> Version | None:
    """``(6, 12)`` of "6.12.117"."""
    found = _LINE.match(text)
    return (int(found[1]), int(found[2])) if found else None


def read_fragment(file: Path, *, version: str, own_config: bool = False) -> list[Request]:
    """The requests of one fragment for one kernel.

    Args:
        version: the kernel's, "6.12.117".
        own_config: the user brings a .config, so preferences do not count.

    Raises:
        UserError: the file is missing, or a line is no assignment, comment or
            directive.
    """
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise UserError(f"the fragment cannot be read: {error.strerror}", file=file) from None
    except UnicodeDecodeError:
        raise UserError("the fragment is not text", file=file) from None
    requests: list[Request] = []
    scope = _Scope()
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            scope = _Scope()
        elif directive := _DIRECTIVE.fullmatch(text):
            scope = _read_directive(
                directive[1].split(), version=version, own_config=own_config, file=file, line=number
            )
        elif (request := _read_line(text, scope=scope, file=file, line=number)) and scope.applies:
            requests.append(request)
    return requests


def read_config(file: Path) -> dict[str, str]:
    """Symbol -> value of a whole .config; "is not set" reads as n.

    Raises:
        UserError: the file is missing or no .config.
    """
    try:
        lines = file.read_text().splitlines()
    except OSError as error:
        raise UserError(f"the .config cannot be read: {error.strerror}", file=file) from None
    except UnicodeDecodeError:
        raise UserError("this is not a .config: it is not text", file=file) from None
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if unset := _UNSET.fullmatch(text):
            values[unset[1]] = "n"
        elif text and not text.startswith("#"):
            values.update([_assignment(text, file=file, line=number)])
    return values


def _read_line(text: str, *, scope: _Scope, file: Path, line: int) -> Request | None:
    if unset := _UNSET.fullmatch(text):
        symbol, value = unset[1], "n"
    elif text.startswith("#"):
        return None
    else:
        symbol, value = _assignment(text, file=file, line=line)
    return Request(
        symbol=symbol,
        value=value,
        file=file,
        line=line,
        if_known=scope.if_known,
        override=scope.override,
    )


def _assignment(text: str, *, file: Path, line: int) -> tuple[str, str]:
    found = _ASSIGNMENT.fullmatch(text)
    if found is None:
        raise UserError(
            f"`{text}` is no configuration line", file=file, line=line, right="write CONFIG_NAME=y"
        )
    if not _VALUE.fullmatch(found[2]):
        raise UserError(
            f"CONFIG_{found[1]} cannot have the value `{found[2]}`",
            file=file,
            line=line,
            right='values are y, m, n, a number or a "quoted string", and nothing after them',
        )
    return found[1], found[2]


def _read_directive(
    words: Sequence[str], *, version: str, own_config: bool, file: Path, line: int
) -> _Scope:
    mine = version_pair(version) or (0, 0)
    applies, if_known, override = True, False, False
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word in ("from", "before"):
            bound = version_pair(rest.pop(0)) if rest else None
            if bound is None:
                raise UserError(
                    f"`{word}` wants a kernel line after it",
                    file=file,
                    line=line,
                    right=f"write for example `# lab: {word} 6.2`",
                )
            applies &= mine >= bound if word == "from" else mine < bound
        elif word == "if-known":
            if_known = True
        elif word == "preference":
            applies &= not own_config
        elif word == "override":
            override = True
        else:
            raise UserError(
                f"the lab knows no directive `{word}`",
                file=file,
                line=line,
                right="there are: from LINE, before LINE, if-known, preference, override",
            )
    return _Scope(applies=applies, if_known=if_known, override=override)
