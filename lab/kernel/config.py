# SPDX-License-Identifier: GPL-2.0-only
"""The final configuration: base and fragments merged, resolved, and checked.

``make olddefconfig`` drops what it cannot keep without a word, so every
symbol that was asked for is compared with what it became.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lab.errors import HostError, KernelError, UserError
from lab.kernel.compiler_errors import first_error
from lab.kernel.expression import LEVELS
from lab.kernel.fragment import Request, config_line, read_config, read_fragment
from lab.kernel.kconfig import Kconfig, read_kconfig
from lab.kernel.make import environment, make_argv
from lab.kernel.open_source import OpenSource
from lab.kernel.toolchain import Toolchain
from lab.kernel.why import Explainer, Miss
from lab.paths import expand
from lab.process import ProgramFailed, run
from lab.progress import note, progress
from lab.seal import digest, digest_file
from lab.store import Artifact, Json, Store

FRAGMENTS = Path(__file__).parent / "configs"

SHOWN = 20
"""Misses that one message lists besides the first."""


def fragment_file(name: str, *, beside: Path) -> Path:
    """The file of a fragment: ``net`` is one of the lab's, ``my/own.config`` the user's.

    Args:
        beside: the directory that a relative path starts from.

    Raises:
        UserError: the lab has no fragment of that name.
    """
    if "/" in name or name.endswith(".config"):
        return beside / expand(name)
    file = FRAGMENTS / f"{name}.config"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in FRAGMENTS.glob("*.config")))
        raise UserError(
            f"there is no configuration fragment `{name}`",
            right=f"there are {known}; a file of your own is named with its path",
        )
    return file


def gather(files: Iterable[Path], *, version: str, own_config: bool) -> list[Request]:
    """What a list of fragments asks for, later ones after earlier ones.

    Raises:
        UserError: two ask for different values of one symbol, and the later
            does not say that it means to.
    """
    asked: dict[str, Request] = {}
    for file in files:
        for request in read_fragment(file, version=version, own_config=own_config):
            before = asked.get(request.symbol)
            if before and before.value != request.value and not request.override:
                raise UserError(
                    f"CONFIG_{request.symbol}={before.value} was asked for and would become "
                    f"{request.value}: {request.file}:{request.line} asks for that later",
                    file=before.file,
                    line=before.line,
                    right="take one of them out, or write `# lab: override` above the later one",
                )
            if before is None or before.value != request.value:
                asked.pop(request.symbol, None)
                asked[request.symbol] = request
    return list(asked.values())


def tell_additions(own: Path, requests: Iterable[Request]) -> int:
    """Say one by one what the lab changes in the user's own .config; how many it was."""
    theirs = read_config(own)
    count = 0
    for request in requests:
        before = theirs.get(request.symbol, "n")
        if before != request.value and not (request.if_known and request.symbol not in theirs):
            count += 1
            note(
                f"{own}: CONFIG_{request.symbol}={before} becomes {request.value}, "
                f"for {request.file}:{request.line}"
            )
    return count


def configure(
    *,
    name: str,
    source_key: str,
    open_source: OpenSource,
    requests: Sequence[Request],
    toolchain: Toolchain,
    store: Store,
    own: Path | None = None,
) -> Artifact:
    """The final configuration as an artifact, with its file ``config``.

    Args:
        name: of the kernel, for the working directory.
        source_key: of all in the source that Kconfig reads.
        requests: what was asked for.
        own: the user's .config; tinyconfig is the base if there is none.

    Raises:
        UserError: a request was not met.
        HostError: the host cannot build the kernel's configuration program.
    """
    # Kconfig asks the compiler 200 small questions, and ccache answers none faster.
    toolchain = replace(toolchain, ccache=False)
    inputs: dict[str, Json] = {
        "source": source_key,
        "base": "tinyconfig" if own is None else digest_file(own),
        "requests": [[r.symbol, r.value, r.if_known] for r in requests],
        "toolchain": {**toolchain.versions, **toolchain.variables},
    }

    def build(content: Path) -> None:
        with (
            progress(f"configure {name}"),
            store.hot("config", f"{name}-{toolchain.name}") as output,
            open_source() as tree,
        ):
            source = tree.path
            base = own or _tinyconfig(source, output, toolchain, store)
            (output / ".config").write_text(merged(read_config(base), requests))
            _make("olddefconfig", source, output, toolchain, store)
            final = output / ".config"
            check(read_config(final), requests, tree=source)
            (content / "config").write_bytes(final.read_bytes())

    return store.make("config", inputs, build)


def merged(base: Mapping[str, str], requests: Iterable[Request]) -> str:
    """A .config with the requests after the base, each symbol once."""
    values = dict(base)
    for request in requests:
        # To the end: of several members of a choice, conf takes the last.
        values.pop(request.symbol, None)
        values[request.symbol] = request.value
    return "".join(f"{config_line(symbol, value)}\n" for symbol, value in values.items())


def check(values: Mapping[str, str], requests: Sequence[Request], *, tree: Path) -> None:
    """Compare what was asked for with what it became.

    Raises:
        UserError: at the line that asked first, with all that was missed.
    """
    suspects = [r for r in requests if values.get(r.symbol) != r.value]
    if not suspects:
        return
    kconfig = read_kconfig(tree)
    explainer = Explainer(kconfig, values, requests)
    unmet = [request for request in suspects if not met(request, values, kconfig)]
    misses = [miss for request in unmet if (miss := explainer.explain(request))]
    if misses:
        raise _error(misses)


def met(request: Request, values: Mapping[str, str], kconfig: Kconfig) -> bool:
    """Whether a value is the one asked for, spelling apart."""
    if request.symbol not in kconfig.definitions:
        return False
    value = values.get(request.symbol, "n")
    if value == request.value:
        return True
    if LEVELS.keys() & {value, request.value}:
        return False
    try:
        return int(value, 0) == int(request.value, 0)
    except ValueError:
        return False


def config_digest(artifact: Artifact) -> str:
    """What the kernel's key knows of its configuration."""
    return digest((artifact.path / "config").read_bytes())


def _error(misses: Sequence[Miss]) -> UserError:
    first, *others = misses
    if not others:
        what, right = first.what, first.right
    else:
        lines = [str(miss) for miss in misses[: SHOWN + 1]]
        lines[0] = lines[0].partition(": ")[2]  # the error itself says where
        if len(misses) > len(lines):
            lines.append(f"and {len(misses) - len(lines)} more")
        what, right = "\n".join(lines), None
    return UserError(what, file=first.request.file, line=first.request.line, right=right)


def _tinyconfig(source: Path, output: Path, toolchain: Toolchain, store: Store) -> Path:
    _make("tinyconfig", source, output, toolchain, store)
    return output / ".config"


def _make(target: str, source: Path, output: Path, toolchain: Toolchain, store: Store) -> None:
    argv = make_argv(source=source, output=output, toolchain=toolchain, targets=(target,))
    try:
        run(argv, env=environment(store), timeout=600)
    except ProgramFailed as error:
        text = error.finished.stdout + error.finished.stderr
        found = first_error(text, source=source)
        if found is not None and found.host:
            raise HostError(f"the kernel's host programs cannot be built: {found.text}") from None
        reason = next((line for line in text.splitlines() if "Kconfig" in line), "")
        raise KernelError(
            f"`make {target}` fails: {reason or error.finished.tail(5)}", file=source
        ) from None
