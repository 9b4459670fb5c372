# SPDX-License-Identifier: GPL-2.0-only
"""linux.*: what the kernel's headers say, under the C name without its prefix."""

from __future__ import annotations

import errno
import socket
import stat

import pytest

from lab.vm.errors import CommandFailed
from lab.vm.machine import Machine

KNOWN: dict[str, dict[str, int]] = {
    "linux.stat": {"IFREG": stat.S_IFREG, "IRUGO": 0o444, "IWUGO": 0o222, "ISUID": stat.S_ISUID},
    "linux.eth": {"IP": 0x0800, "IPV6": 0x86DD, "ARP": 0x0806, "ALL": 3, "8021Q": 0x8100},
    "linux.xdp": {"ABORTED": 0, "DROP": 1, "PASS": 2, "TX": 3, "REDIRECT": 4},
    "linux.bpf": {"ANY": 0, "NOEXIST": 1, "EXIST": 2, "F_LOCK": 4, "MAP_TYPE_HASH": 1},
    "linux.task": {"RUNNING": 0, "INTERRUPTIBLE": 1, "UNINTERRUPTIBLE": 2},
    "linux.notify": {"DONE": 0, "OK": 1, "STOP": 0x8001, "BAD": 0x8002},
    "linux.netdev": {"UP": 1, "DOWN": 2, "REGISTER": 5, "UNREGISTER": 6},
    "linux.socket.sock": {"STREAM": 1, "DGRAM": 2, "RAW": 3, "SEQPACKET": 5},
    "linux.socket.af": {"UNIX": 1, "INET": 2, "INET6": 10, "PACKET": socket.AF_PACKET},
    "linux.socket.msg": {"PEEK": socket.MSG_PEEK, "DONTWAIT": socket.MSG_DONTWAIT},
    "linux.socket.ipproto": {"TCP": 6, "UDP": 17, "ICMP": 1, "IPV6": 41},
    "linux.socket.sol": {"SOCKET": 1, "TCP": 6, "UDP": 17, "PACKET": 263},
    "linux.socket.so": {"REUSEADDR": 2, "KEEPALIVE": 9, "BINDTODEVICE": 25},
    "linux.nf.ct.info": {"ESTABLISHED": 0, "RELATED": 1, "NEW": 2},
    "linux.nf.ct.status": {"EXPECTED": 1, "SEEN_REPLY": 2, "ASSURED": 4, "CONFIRMED": 8},
    "linux.nf.ct.dir": {"ORIGINAL": 0, "REPLY": 1},
    "linux.nf.ct.tcp": {"NONE": 0, "SYN_SENT": 1, "SYN_RECV": 2, "ESTABLISHED": 3},
}


@pytest.mark.parametrize("library", KNOWN)
def test_values_are_those_of_the_abi(machine: Machine, library: str) -> None:
    names = list(KNOWN[library])
    reads = ", ".join(f"t['{name}']" for name in names)
    said = machine.lua(f'local t = require("{library}") return {reads}')
    assert dict(zip(names, map(int, said.split()), strict=True)) == KNOWN[library]


def test_tables_of_tables_and_the_short_way(machine: Machine) -> None:
    machine.lua(
        """
        local linux, sock = require("linux"), require("linux.socket")
        assert(sock.af.INET == 2 and sock.so.REUSEADDR == 2 and sock.ipproto.UDP == 17)
        assert(linux.stat.IRUGO == 292 and linux.socket.sol.SOCKET == 1)
        assert(require("linux.nf").ct.tcp.ESTABLISHED == 3)
        assert(require("linux.nf.ct").status.ASSURED == 4)
        assert(rawequal(linux.stat, linux.stat) and rawequal(linux.stat, require("linux.stat")))
        assert(linux.nothing == nil and linux[1] == nil)
        """
    )


def test_every_value_is_an_integer_and_there_are_many(machine: Machine) -> None:
    machine.lua(
        """
        for name, least in pairs{bpf = 200, eth = 80, netdev = 30, task = 10, stat = 20} do
            local count = 0
            for key, value in pairs(require("linux." .. name)) do
                assert(math.type(value) == "integer", key)
                assert(not key:find("^[A-Z]+_$"), key)
                count = count + 1
            end
            assert(count >= least, name .. ": " .. count)
        end
        """
    )


@pytest.mark.parametrize(
    "name",
    ["linux.nothing", "linux.stat\\0", "linux.%s%n", "linux.stat%x", "linux..stat", "x" * 300, ""],
)
def test_libraries_that_are_none(machine: Machine, name: str) -> None:
    with pytest.raises(CommandFailed, match=r"not found|bad argument|too long|zero byte"):
        machine.lua(f'return require("{name}")')


def test_errors_have_their_names(machine: Machine) -> None:
    for number in (errno.EINVAL, errno.ENOENT, errno.EPERM):
        assert machine.lua(f'return require("linux").errname({number})') == errno.errorcode[number]
