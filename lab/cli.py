# SPDX-License-Identifier: GPL-2.0-only
"""The command line: puts the command groups together, turns errors into exit statuses.

A command group is a file in lab/commands with ``register(app)``.  What a
command needs is imported inside it, so that ``lab --help`` is quick.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from lab import __version__, status
from lab.commands import (
    bench,
    cell,
    doctor,
    gc,
    image,
    kernel,
    kselftest,
    kunit,
    machines,
    modules,
    replay,
    test,
)
from lab.errors import LabError, UserError, of_system

COMMANDS = (
    test,
    kselftest,
    kunit,
    bench,
    kernel,
    modules,
    image,
    machines,
    cell,
    replay,
    doctor,
    gc,
)
"""In the order in which --help lists them."""


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="lab",
        help="Patched Linux kernels with Lua inside: built, booted and tested in QEMU.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for command in COMMANDS:
        command.register(app)
    return app


def main() -> None:
    """Entry point of ``lab``."""
    file = status.take_file()
    code = run(sys.argv[1:])
    status.record(file, code)
    sys.exit(code)


def run(argv: list[str]) -> int:
    """Run one command line; its exit status.

    One message on standard error says what went wrong; LAB_DEBUG=1 adds the
    traceback.
    """
    ending = _Ending()
    try:
        _refuse_undecodable(argv)
        build()(argv, prog_name="lab")
        return 0
    except SystemExit as end:  # the way typer ends, also after a good command
        return ending.status(end)
    except KeyboardInterrupt:
        return 128 + (ending.signal or signal.SIGINT)
    except LabError as error:
        return _report(f"lab: {error}", error.exit_status)
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter must not stumble over it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except Exception as error:
        return _unforeseen(error)


def _refuse_undecodable(argv: list[str]) -> None:
    """Words end up in cells, records and the guest agent's requests, all of them JSON."""
    for word in argv:
        try:
            word.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(word).decode(errors="backslashreplace")
            raise UserError(f"`{shown}` is not UTF-8 text", right="give it another name") from None


def _unforeseen(error: Exception) -> int:
    if isinstance(error, OSError) and (known := of_system(error)):
        return _report(f"lab: {known}", known.exit_status)
    what = f"lab: a fault of the lab itself: {type(error).__name__}: {error}"
    return _report(f"{what} (LAB_DEBUG=1 shows where)", LabError.exit_status)


def _report(message: str, code: int) -> int:
    if os.environ.get("LAB_DEBUG") == "1":
        traceback.print_exc()
    print(message, file=sys.stderr)
    return code


class _Ending:
    """Turns signals that ask us to end into KeyboardInterrupt, so that all clean up."""

    def __init__(self) -> None:
        self.signal = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._end)

    def _end(self, number: int, _: FrameType | None) -> None:
        # To us and to our group, say, and by ./run as well: only a second Ctrl-C
        # means that somebody has no more patience.
        if self.signal and number != signal.SIGINT:
            return
        self.signal = number
        raise KeyboardInterrupt

    def status(self, end: SystemExit) -> int:
        """typer makes 1 or 130 of an interrupt, whichever signal it was, and 1 of a
        reader that has gone, which is what a failed test is to scripts.
        """
        if self.signal:
            return 128 + self.signal
        if isinstance(end.__context__, BrokenPipeError):
            return 128 + signal.SIGPIPE
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


def _options(
    manifest: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Layered on lab.yaml, instead of lab.local.yaml."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
) -> None:
    del version  # its callback has done it
    if manifest is not None:
        os.environ["LAB_MANIFEST"] = str(manifest.absolute())
