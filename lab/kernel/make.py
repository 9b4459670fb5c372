# SPDX-License-Identifier: GPL-2.0-only
"""How the lab calls a kernel's make: the same words each time, whoever calls."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lab.kernel.toolchain import Toolchain
from lab.store import Store

ARCH = "x86_64"

# What a build would otherwise take from the clock, the host and the user.
# The empty LOCALVERSION keeps scripts/setlocalversion from adding a "+".
STAMPS = {
    "KBUILD_BUILD_TIMESTAMP": "Thu Jan  1 00:00:00 UTC 1970",
    "KBUILD_BUILD_USER": "lab",
    "KBUILD_BUILD_HOST": "lab",
    "KBUILD_BUILD_VERSION": "1",
    "LOCALVERSION": "",
}

CACHE_SIZE = "10G"

PASSED_ON = ("HOME", "LD_LIBRARY_PATH", "LOGNAME", "PATH", "TERM", "TMPDIR", "USER")
"""Variables of the caller's that make and compilers may see."""

MAKE_LOCK = "make.lock"
"""Beside an object tree; held by every make in it."""


def make_argv(
    *, source: Path, output: Path, toolchain: Toolchain, targets: tuple[str, ...], jobs: int = 0
) -> list[str]:
    """The command that makes targets of a kernel out of tree.

    Args:
        jobs: how many at once; one for each processor if 0.
    """
    words = {"O": str(output), **variables(source=source, output=output, toolchain=toolchain)}
    return [
        *guard(output.parent / MAKE_LOCK),
        *("make", "-C", str(source), f"-j{jobs or processors()}", "--output-sync=target"),
        *(f"{name}={value}" for name, value in words.items()),
        *targets,
    ]


def guard(lock: Path) -> list[str]:
    """What stands before ``make`` in a command.

    Should the lab be killed, the kernel tells the shell (see ``lab.process``),
    and the shell all its process group: make itself would end its children only,
    not what those have started.  Until the last has gone, the inherited lock keeps the next make
    out of the same tree.
    """
    return [
        *("sh", "-c", 'trap "trap - TERM; kill -TERM 0" TERM; "$@" & wait $!', "sh"),
        *("flock", "--no-fork", str(lock)),
        *("nice", "-n5"),
    ]


@contextmanager
def settled(lock: Path) -> Iterator[None]:
    """When the last child of a make that was killed has gone; no other begins meanwhile.

    Args:
        lock: that of ``guard``.
    """
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def variables(*, source: Path, output: Path, toolchain: Toolchain) -> dict[str, str]:
    """Every variable that decides what comes out.

    Debug information names files as from the top of the source, so that a
    kernel does not depend on where the store lies.
    """
    maps = " ".join(f"-fdebug-prefix-map={path}=." for path in (output, source))
    return {
        "ARCH": ARCH,
        "CROSS_COMPILE": "",
        **toolchain.variables,
        **STAMPS,
        "KCFLAGS": maps,
        "KAFLAGS": maps,
    }


def environment(store: Store) -> Mapping[str, str | None]:
    """The environment of every make of a kernel or its modules, for ``lab.process.run``.

    ccache's depend mode spares a preprocessor run for each miss; kbuild's
    -Wp,-MMD gives it the dependencies.  __TIME__ is not used in the kernel
    (-Wdate-time), hence the sloppiness.
    """
    cache = store.root / "hot" / "ccache" / "kernel"
    cache.mkdir(parents=True, exist_ok=True)
    os.utime(cache)  # gc goes by this
    return {
        **strict(),
        # kbuild unexports LC_ALL; compilers' messages, and ccache's keys, go by the others.
        "LC_ALL": "C",
        "LANG": "C",
        "LC_CTYPE": "C",
        "LC_MESSAGES": "C",
        "CCACHE_DIR": str(cache),
        "CCACHE_MAXSIZE": CACHE_SIZE,
        "CCACHE_DEPEND": "1",
        "CCACHE_SLOPPINESS": "time_macros",
    }


def strict() -> dict[str, str | None]:
    """Takes away whatever else of the caller's environment could decide what comes out.

    make takes each variable of the environment for one of its own: LLVM=1,
    KCONFIG_CONFIG, HOSTCFLAGS or INSTALL_MOD_STRIP would make other bits under
    the same key, and so would the compilers' CPATH.
    """
    return dict.fromkeys(os.environ.keys() - set(PASSED_ON))


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))
