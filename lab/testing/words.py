# SPDX-License-Identifier: GPL-2.0-only
"""The words of a command line that are meant for pytest."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.errors import UserError

#: pytest's options whose value is the next word.
_WITH_VALUE = re.compile(
    r"-[kmpocWrn]|--(assert|basetemp|capture|color|config-file|confcutdir|deselect|dist"
    r"|doctest-glob|durations|durations-min|ignore|ignore-glob|import-mode|junit-?xml"
    r"|junit-?prefix|log-[a-z-]+|max-warnings|max-worker-restart|maxfail|maxprocesses"
    r"|maxschedchunk|numprocesses|override-ini|pastebin|pdbcls|px|pythonwarnings"
    r"|report-chars|rootdir|rsyncdir|rsyncignore|show-capture|tb|testrunuid|tx|verbosity)"
)

#: The lab's own, which decide what tests tests/kselftest and tests/kunit have.
_OF_SUITES = ("--kselftest", "--kselftest-before", "--kselftest-limit", "--kunit")
_OF_SUITES_ALONE = ("--kselftest-compare",)


@dataclass(frozen=True, kw_only=True)
class Words:
    """What pytest gets: options as they are, tests as the checkout names them."""

    options: tuple[str, ...]
    tests: tuple[str, ...]


def sort_words(words: Sequence[str], *, here: Path, root: Path) -> Words:
    """Tell options from tests.

    Args:
        words: as typed.
        here: where they were typed; paths are relative to it, or to the root.
        root: the checkout.

    Errors:
        UserError: a path that is nowhere.
    """
    options: list[str] = []
    tests: list[str] = []
    value = False
    for word in words:
        if value or word.startswith("-"):
            options.append(word)
            value = not value and _WITH_VALUE.fullmatch(word) is not None
        else:
            tests.append(_locate(word, here=here, root=root))
    return Words(options=tuple(options), tests=tuple(tests))


def making_tests(options: Sequence[str]) -> tuple[str, ...]:
    """Of a cell's options those without which its tests would not be there."""
    kept: list[str] = []
    words = iter(options)
    for word in words:
        if word in _OF_SUITES:
            kept += [word, next(words, "")]
        elif word in _OF_SUITES_ALONE:
            kept.append(word)
        elif _WITH_VALUE.fullmatch(word):
            next(words, "")
    return tuple(kept)


def _locate(word: str, *, here: Path, root: Path) -> str:
    name, mark, rest = word.partition("::")
    # An empty name would be the directory that we stand in, and all that is below it.
    for base in (here, root) if name else ():
        path = Path(os.path.normpath(base / name))
        if path.exists():
            inside = path.is_relative_to(root)
            return f"{path.relative_to(root) if inside else path}{mark}{rest}"
    raise UserError(
        f"there is no test `{name}` in {here}" + ("" if here == root else f" or in {root}"),
        right="a file or directory with tests, such as tests/e2e/smoke",
    )
