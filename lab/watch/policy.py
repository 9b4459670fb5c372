# SPDX-License-Identifier: GPL-2.0-only
"""The splat policy: data beside the kernel configs, typed here."""

from __future__ import annotations

import re
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from lab.errors import UserError
from lab.watch.event import Event

SHIPPED = Path(__file__).parent.parent / "kernel" / "configs" / "splats.yaml"


def _pattern(value: object) -> object:
    return re.compile(value) if isinstance(value, str) else value


def _words(value: object) -> object:
    return frozenset(value.split()) if isinstance(value, str) else value


Pattern = Annotated[re.Pattern[str], BeforeValidator(_pattern)]


class Rule(BaseModel):
    """One kind of splat: how its line looks and why it counts."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    kind: str
    match: Pattern
    severity: Literal["fatal", "splat", "note"]
    reason: str
    single: bool = False
    inside: bool = False


class Noise(BaseModel):
    """A report that nobody fails for, with the reason.

    Its first line is looked at. The rest, where lines of others may stand, too,
    only if `whole`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    match: Pattern
    reason: str
    whole: bool = False
    kernels: tuple[str, ...] = ()
    flavours: tuple[str, ...] = ()

    def covers(self, event: Event, *, kernel: str, flavour: str) -> bool:
        """True where this exception holds for a report of that kernel and flavour."""
        if self.kernels and not any(_same_line(kernel, line) for line in self.kernels):
            return False
        if self.flavours and flavour not in self.flavours:
            return False
        return self.match.search(event.text if self.whole else event.title) is not None


class Policy(BaseModel):
    """What counts as a splat, what is noise, what is left out of stacks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    splats: tuple[Rule, ...]
    noise: tuple[Noise, ...] = ()
    skip: Annotated[frozenset[str], BeforeValidator(_words)] = frozenset()

    @cached_property
    def _any(self) -> re.Pattern[str]:
        return re.compile("|".join(f"(?:{rule.match.pattern})" for rule in self.splats))

    def excuse(self, event: Event, *, kernel: str, flavour: str) -> str | None:
        """Why nobody fails for a report of that kernel and flavour; None if somebody does."""
        for noise in self.noise:
            if noise.covers(event, kernel=kernel, flavour=flavour):
                return noise.reason
        return None

    def rule(self, line: str) -> tuple[int, Rule] | None:
        """The first rule that matches the line, with its precedence."""
        # Nearly every line matches none, which one search tells.
        if self._any.search(line) is None:
            return None
        for index, rule in enumerate(self.splats):
            if rule.match.search(line):
                return index, rule
        return None


def _same_line(version: str, line: str) -> bool:
    """6.1.192 belongs to line 6.1, 6.12.3 does not."""
    return version == line or version.startswith((line + ".", line + "-"))


@cache
def load_policy(path: Path = SHIPPED) -> Policy:
    """Read a policy file.

    Errors:
        UserError: the file is not there, not YAML, or not a policy.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Policy.model_validate(data)
    except OSError as error:
        raise UserError(f"cannot read the splat policy: {error.strerror}", file=path) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise UserError(f"not YAML: {error.problem}", file=path, line=line) from None
    except (ValidationError, re.error) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else {"msg": str(error)}
        where = ".".join(str(part) for part in first.get("loc", ()))
        raise UserError(f"not a splat policy: {where}: {first['msg']}", file=path) from None
