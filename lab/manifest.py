# SPDX-License-Identifier: GPL-2.0-only
"""lab.yaml: what is built and tested.  Typed; each value knows its file and line.

The file that ships with the lab comes first; on it lies the user's own
(lab.local.yaml beside it, or the one named with ``--manifest``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    StrictBool,
    StrictInt,
    Tag,
    ValidationError,
    model_validator,
)

from lab.errors import UserError
from lab.marked import MarkedDict, MarkedList, Where, load, merge, similar
from lab.paths import expand

ROOT = Path(__file__).resolve().parent.parent
"""The checkout: where lab.yaml, lunatik-src, kernel-patches and the rest stand."""

MOST_PATIENT = 1000
"""More than this is a slip of the finger, and days until something is given up."""

WHOLE = ("kernels.*.source", "series.*")
"""Mappings of which an overlay replaces all or nothing: they are a choice of one kind."""

EXPECTED = {
    "model_type": ("a mapping", "`key: value` lines below it"),
    "dict_type": ("a mapping", "`key: value` lines below it"),
    "tuple_type": ("a list", "[one, another]"),
    "int_type": ("a whole number", None),
    "bool_type": ("true or false", None),
}
"""pydantic's words for it, and what a user should read."""

T = TypeVar("T")


class Entry(BaseModel):
    """A mapping in the manifest; unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _raw: MarkedDict = PrivateAttr()

    @model_validator(mode="wrap")
    @classmethod
    def _mark(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if isinstance(value, MarkedDict):
            for key in value:
                if key not in cls.model_fields:
                    raise value.key_at[key].error(
                        f"the key `{key}` is unknown here", similar(key, cls.model_fields)
                    )
        entry = handler(value)
        if isinstance(value, MarkedDict):
            entry._raw = value
        return entry

    def where(self, *path: str | int) -> Where:
        """Where a value of this entry stands: ``where("patches", 0)``; the entry without path."""
        return _position(self._raw, path)

    def resolve(self, field: str) -> Path:
        """The path in a field, taken from the directory of the file that names it.

        Raises:
            UserError: it begins with the ``~`` of somebody who is not there.
        """
        where = self.where(field)
        try:
            path = expand(getattr(self, field))
        except UserError as error:
            raise where.error(error.what, error.right) from None
        return (where.file.parent / path).absolute()


def _listed(value: object) -> object:
    if isinstance(value, str):
        raise ValueError(f"a list is expected; write [{value}]")
    return value


def _word_of_debian(value: str) -> str:
    # It goes into apt's sources and commands, where a blank would part it.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+/-]*", value):
        raise ValueError(f"`{value}` is no name that Debian gives; letters, digits and . + - /")
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Text = Annotated[str, Field(min_length=1)]
Debian = Annotated[str, AfterValidator(_word_of_debian)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class DebianSource(Entry):
    """A linux-source package of a Debian suite."""

    debian: Debian
    suite: Debian


class GitSource(Entry):
    """A commit, tag or branch of a git tree, local or not."""

    git: Text
    ref: Text


class TarballSource(Entry):
    """A tarball, by path or URL."""

    tarball: Text
    sha256: Sha256


class PathSource(Entry):
    """The user's own working tree: used as it is, dirty or not, never written to."""

    path: Text


KINDS_OF_SOURCE = "{debian, suite}, {git, ref}, {tarball, sha256} or {path}"


def _kind_of_source(value: Any) -> str | None:
    kinds = ("debian", "git", "tarball", "path")
    if isinstance(value, Entry):
        return next(kind for kind in kinds if kind in type(value).model_fields)
    found = [kind for kind in kinds if isinstance(value, Mapping) and kind in value]
    if len(found) == 1:
        return found[0]
    if isinstance(value, MarkedDict):
        raise value.where.error(
            f"a source is of one kind, this names {' and '.join(found) or 'none'}", KINDS_OF_SOURCE
        )
    return None


Source = Annotated[
    Annotated[DebianSource, Tag("debian")]
    | Annotated[GitSource, Tag("git")]
    | Annotated[TarballSource, Tag("tarball")]
    | Annotated[PathSource, Tag("path")],
    Discriminator(
        _kind_of_source,
        custom_error_type="source",
        custom_error_message=f"a source is {KINDS_OF_SOURCE}",
    ),
]


class KernelSpec(Entry):
    """A kernel to build.

    Attributes:
        source: where its source comes from.
        patches: names of series, applied in this order.
        config: the user's own .config, instead of the flavour's base.
        fragments: configuration fragments on top of the flavour's.
    """

    source: Source
    patches: Names = ()
    config: Text | None = None
    fragments: Names = ()


class FlavourSpec(Entry):
    """A way to configure a kernel, and the machine that it then wants.

    Attributes:
        fragments: in lab/kernel/configs, later ones win.
        memory: MiB of a machine.
        patience: time limits are multiplied by this.
        cmdline: further words for the kernel's command line.
        suites: what is run under it where nobody names a test; ``e2e`` if
            left out.
        shared: all tests are run once more in one machine: its sanitizers need
            history.
    """

    fragments: Names
    memory: Annotated[StrictInt, Field(ge=64)] = 512
    patience: Annotated[StrictInt, Field(ge=1, le=MOST_PATIENT)] = 1
    cmdline: Names = ()
    suites: Names = ()
    shared: StrictBool = False


class SeriesSpec(Entry):
    """Patches: a quilt directory (or one with a folder per kernel line), mbox,
    maildir or .patch file; or a range of commits of a git tree.
    """

    path: Text | None = None
    git: Text | None = None
    range: Text | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.path is None) == (self.git is None) or (self.git is None) != (self.range is None):
            raise ValueError("a series is {path} or {git, range}")
        return self


class ModulesSpec(Entry):
    """An external module tree; with ``lua``, that Lua is laid into it first."""

    path: Text
    lua: Text | None = None


class LuaSpec(Entry):
    """Pristine Lua, a member of a Python source distribution."""

    pypi: Text
    version: Text
    member: Text


class ImageSpec(Entry):
    """A root file system, by its recipe."""

    recipe: Text


class Manifest(Entry):
    """All of it."""

    default_kernel: Text
    default_image: Text
    kernels: dict[str, KernelSpec]
    flavours: dict[str, FlavourSpec]
    series: dict[str, SeriesSpec] = {}
    modules: dict[str, ModulesSpec] = {}
    lua: dict[str, LuaSpec] = {}
    images: dict[str, ImageSpec]
    suites: dict[str, Names] = {}

    def kernel(self, name: str) -> KernelSpec:
        """A kernel by name.  Raises UserError with the nearest name (so do all of these)."""
        return _named(self.kernels, "kernel", name)

    def kernel_or_default(self, asked: str | None) -> str:
        """What was asked for, or the default kernel's name; an empty name is a name."""
        return self.default_kernel if asked is None else asked

    def flavour(self, name: str) -> FlavourSpec:
        """A flavour by name."""
        return _named(self.flavours, "flavour", name)

    def patch_series(self, name: str) -> SeriesSpec:
        """A patch series by name."""
        return _named(self.series, "series", name)

    def module_tree(self, name: str) -> ModulesSpec:
        """A module tree by name."""
        return _named(self.modules, "module tree", name)

    def image(self, name: str) -> ImageSpec:
        """An image by name."""
        return _named(self.images, "image", name)

    def suite(self, name: str) -> tuple[str, ...]:
        """The paths of a suite by name."""
        return _named(self.suites, "suite", name)

    def check(self) -> None:
        """See that every name that one part uses is there in the other.

        Raises:
            UserError: one is not, or is no name.
        """
        for section in ("kernels", "flavours", "series", "modules", "lua", "images", "suites"):
            for name in getattr(self, section):
                self._check_name(section, name)
        for name, tests in self.suites.items():
            if not tests:
                # pytest would take no path for all that there is.
                raise self._key_at("suites", name).error(
                    f"the suite `{name}` is empty", "name tests, such as [tests/e2e/smoke]"
                )
        self._refers(self, "default_kernel", to=self.kernels, what="kernel")
        self._refers(self, "default_image", to=self.images, what="image")
        for kernel in self.kernels.values():
            self._refers(kernel, "patches", to=self.series, what="series")
        for flavour in self.flavours.values():
            self._refers(flavour, "suites", to=self.suites, what="suite")
        for tree in self.modules.values():
            self._refers(tree, "lua", to=self.lua, what="Lua")

    def _check_name(self, section: str, name: str) -> None:
        # Names become directories and parts of file names.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+]*(-[A-Za-z0-9._+]+)*", name):
            raise self._key_at(section, name).error(
                f"`{name}` cannot be a name", "use letters, digits, and . _ + - between them"
            )
        if name == "all":
            raise self._key_at(section, name).error("`all` means all of them", "take another name")

    def _key_at(self, section: str, name: str) -> Where:
        below = self._raw[section]
        assert isinstance(below, MarkedDict)
        return below.key_at[name]

    @staticmethod
    def _refers(entry: Entry, field: str, *, to: Mapping[str, object], what: str) -> None:
        value = getattr(entry, field)
        several = isinstance(value, tuple)
        for index, name in enumerate(value if several else (value,)):
            if name is not None and name not in to:
                where = entry.where(field, index) if several else entry.where(field)
                raise where.error(f"there is no {what} `{name}`", similar(name, to))


def read(user: Path | None = None, *, root: Path = ROOT) -> Manifest:
    """The manifest: lab.yaml of the checkout, and the user's own file on it.

    Args:
        user: their file; else the one that $LAB_MANIFEST names (the command
            line sets it), else lab.local.yaml of the checkout, if it is there.
        root: the checkout.

    Raises:
        UserError: at the file and line of the mistake.
    """
    raw = load(root / "lab.yaml")
    user = user or _own_file(root)
    if user is not None:
        raw = merge(raw, load(user.absolute()), whole=WHOLE)
    try:
        manifest = Manifest.model_validate(raw)
    except ValidationError as error:
        raise first_error(raw, error) from None
    manifest.check()
    return manifest


def _own_file(root: Path) -> Path | None:
    if named := os.environ.get("LAB_MANIFEST"):
        return Path(named)
    local = root / "lab.local.yaml"
    return local if local.exists() else None


def _named(section: Mapping[str, T], what: str, name: str) -> T:
    try:
        return section[name]
    except KeyError:
        raise UserError(f"there is no {what} `{name}`", right=similar(name, section)) from None


def first_error(raw: MarkedDict, error: ValidationError) -> UserError:
    """Of all that is wrong, what stands first in the file."""
    messages = []
    for detail in error.errors():
        path = tuple(detail["loc"])
        where, key = _position(raw, path), _last_key(raw, path)
        what = str(detail["msg"]).removeprefix("Value error, ")
        right = None
        if detail["type"] == "missing":
            what = f"the key `{path[-1]}` is missing here"
        elif detail["type"] == "string_type":
            what, right = f"`{key}` must be text", f'quote it: "{detail["input"]}"'
            if isinstance(detail["input"], Mapping | list | None):
                right = None
        elif detail["type"] in EXPECTED:
            what, right = EXPECTED[detail["type"]]
            what = f"`{key}` must be {what}" if key else f"{what} is expected here"
        elif key:
            what = f"`{key}`: {what[:1].lower()}{what[1:]}"
        messages.append((where.line, where.error(what, right)))
    return min(messages, key=lambda pair: pair[0])[1]


def _position(raw: Any, path: tuple[str | int, ...]) -> Where:
    """The place of a value; steps that are not in the file are skipped."""
    where: Where = raw.where
    for holder, step in _steps(raw, path):
        if isinstance(holder, MarkedList):
            where = holder.value_at[int(step)]
        else:
            name = str(step)
            # A block mapping starts below its key, and the key is where to look.
            nested = isinstance(holder[name], MarkedDict | MarkedList)
            where = holder.key_at[name] if nested else holder.value_at[name]
    return where


def _last_key(raw: Any, path: tuple[str | int, ...]) -> str | None:
    keys = [str(step) for holder, step in _steps(raw, path) if isinstance(holder, MarkedDict)]
    return keys[-1] if keys else None


def _steps(
    raw: Any, path: tuple[str | int, ...]
) -> Iterator[tuple[MarkedDict | MarkedList, str | int]]:
    """The steps of a path that are in the file, each with what holds it.

    The kind of a source is a step of its own (source, git, ref), and a key of
    the file as well: one beside the next step, not above it.
    """
    for number, step in enumerate(path, start=1):
        after = path[number] if number < len(path) else None
        if isinstance(raw, MarkedDict) and step in raw:
            below = raw[str(step)]
            if after in raw and not isinstance(below, MarkedDict | MarkedList):
                continue
        elif isinstance(raw, MarkedList) and isinstance(step, int) and step < len(raw):
            below = raw[step]
        else:
            continue
        yield raw, step
        raw = below
