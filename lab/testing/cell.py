# SPDX-License-Identifier: GPL-2.0-only
"""A cell: one kernel, one flavour, one share of the tests, as a file.

A cell runs alone, from the store and the checkout, on whatever machine it was
carried to; nothing in it points at the process or the machine that planned it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lab.errors import UserError
from lab.manifest import MOST_PATIENT


class Peer(BaseModel):
    """Another kernel of the same run, for topologies that mix them.

    Attributes:
        name: as in the manifest.
        kernel, modules: keys of artifacts.
        flavour, patience, memory, cmdline: as in a cell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    flavour: str
    kernel: str
    modules: str | None = None
    patience: float = Field(default=1.0, gt=0, le=MOST_PATIENT)
    memory: int = Field(default=512, ge=64)
    cmdline: tuple[str, ...] = ()


class Cell(BaseModel):
    """What `lab cell run` needs to know.

    Attributes:
        run: name of the run that it belongs to.
        name: "<kernel>-<flavour>-<shard>", the directory of its results; clang's
            have "-llvm" before the shard.
        kernel, modules, image: keys of artifacts.
        kernel_name: as in the manifest; empty for what the artifact was first
            built as. The same bits may go by several names and flavours.
        patience: time limits are multiplied by it.
        memory: MiB of a machine that does not say otherwise.
        tests: pytest's paths and node ids, relative to the checkout where they
            lie in it.
        options: further words for pytest.
        shard, shards: this cell's share of the tests, counted from 1.
        workers: processes that share the tests; 0 runs them in one.
        shared: all tests use one machine instead of a pristine one each.
        peers: every kernel and flavour of the run, this one too.
        times: seconds that a test took in earlier runs; the longest start first.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    name: str = Field(pattern=r"^[\w.+-]+$")
    kernel: str
    kernel_name: str = ""
    modules: str | None = None
    image: str
    flavour: str
    provider: str = "qemu"
    accel: str = "auto"
    patience: float = Field(default=1.0, gt=0, le=MOST_PATIENT)
    memory: int = Field(default=512, ge=64)
    cmdline: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    shard: int = Field(default=1, ge=1)
    shards: int = Field(default=1, ge=1)
    workers: int = Field(default=0, ge=0)
    shared: bool = False
    peers: tuple[Peer, ...] = ()
    times: dict[str, float] = {}

    def save(self, path: Path) -> None:
        """Write the cell's file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_cell(path: Path) -> Cell:
    """Read a cell's file.

    Errors:
        UserError: it cannot be read, or is not a cell.
    """
    try:
        return Cell.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read the cell: {error.strerror}", file=path) from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"not a cell: {where + ': ' if where else ''}{first['msg']}",
            file=path,
            right="`lab test` writes cells into results/<run>/cells/<cell>/cell.json",
        ) from None
