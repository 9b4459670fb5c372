# SPDX-License-Identifier: GPL-2.0-only
"""The selftest of the kernel patches, which knows nothing of Lua, as they bring it.

`lab kselftest net -k xdp_lua` runs it as the kernel does, for which it builds
all selftests of net; the script itself wants a few files of them.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from twins import HERE

from lab import manifest, process
from lab.kernel.kselftest import SELFTESTS
from lab.kernel.recipe import make_recipe
from lab.store import Store
from lab.testing.bpf import Compiler
from lab.testing.fixtures import KernelInfo
from lab.vm.machine import Machine

SCRIPT = "xdp_lua.sh"

#: What it sources, where the kernel has it, and what it runs.
BESIDE = ("lib.sh", "lib/sh/*.sh", "xdp_lua_link.c")

THERE = "/opt/selftest"

RESULT = re.compile(r"^TEST: (\w+), (skb|drv) mode\s*\[ *(\w+) *\]$", re.MULTILINE)


def files(kernel: KernelInfo) -> dict[str, bytes]:
    """The script and what it needs, by their names below selftests/net."""
    recipe = make_recipe(manifest.read(), kernel.name, store=Store())
    with recipe.open_source() as tree:
        net = tree.path / SELFTESTS / "net"
        found = [net / SCRIPT, *(path for glob in BESIDE for path in sorted(net.glob(glob)))]
        return {str(path.relative_to(net)): path.read_bytes() for path in found}


def built(source: bytes, directory: Path) -> bytes:
    """A program for the guest, whose C library may be another one."""
    file, program = directory / "program.c", directory / "program"
    file.write_bytes(source)
    process.run(["gcc", "-O2", "-Wall", "-Werror", "-static", "-o", str(program), str(file)])
    return program.read_bytes()


@pytest.mark.usefixtures("hooks")
@pytest.mark.machine(cpus=1, memory=512)
@pytest.mark.slow
@pytest.mark.limit(600)
def test_selftest_of_the_patches(
    machine: Machine, kernel: KernelInfo, bpf: Compiler, tmp_path: Path
) -> None:
    content = files(kernel)
    text = content[SCRIPT].decode()
    # The kernel's program differs from ours in name only.
    (program,) = re.findall(r'^BPF_OBJECT=\$\(dirname "\$0"\)/(\S+)$', text, re.MULTILINE)
    content[program] = bpf(HERE / "pass.bpf.c").read_bytes()
    (link,) = re.findall(r'^LINK=\$\(dirname "\$0"\)/(\S+)$', text, re.MULTILINE)
    content[link] = built(content[f"{link}.c"], tmp_path)
    (listed,) = re.findall(r'^CASES="([^"]*)"$', text, re.MULTILINE)
    wanted = {(case, mode) for case in listed.split() for mode in ("skb", "drv")}
    for name, data in content.items():
        machine.succeed(f"mkdir -p {THERE}/{Path(name).parent}")
        machine.copy_to(data, f"{THERE}/{name}", mode=0o755)

    done = machine.execute(f"cd {THERE} && ./{SCRIPT} 2>&1", timeout=500)
    print(done.stdout)
    results = {(case, mode): how for case, mode, how in RESULT.findall(done.stdout)}
    assert results == dict.fromkeys(wanted, "OK")
    assert done.status == 0
