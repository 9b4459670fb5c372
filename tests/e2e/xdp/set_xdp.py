# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: ask rtnetlink for a change of a device's XDP, as no tool does.

    python3 set_xdp.py DEVICE name TEXT            IFLA_XDP_LUA
    python3 set_xdp.py DEVICE replace NEW OLD      pinned programs, XDP_FLAGS_REPLACE

Prints the error's name, or "done".
"""

import ctypes
import errno
import os
import socket
import struct
import sys

RTM_SETLINK, NLM_F_REQUEST, NLM_F_ACK, NLMSG_ERROR = 19, 1, 4, 2
NLA_F_NESTED = 1 << 15
IFLA_XDP, IFLA_XDP_FD, IFLA_XDP_FLAGS, IFLA_XDP_EXPECTED_FD, IFLA_XDP_LUA = 43, 1, 3, 8, 9
REPLACE = 1 << 4
BPF, OBJ_GET = 321, 7


def attribute(kind: int, value: bytes) -> bytes:
    head = struct.pack("=HH", 4 + len(value), kind)
    return head + value + bytes(-len(value) % 4)


def program(path: str) -> int:
    """A pinned one, opened."""
    name = ctypes.create_string_buffer(path.encode())
    asked = struct.pack("=QII", ctypes.addressof(name), 0, 0)
    descriptor = ctypes.CDLL(None, use_errno=True).syscall(BPF, OBJ_GET, asked, len(asked))
    if descriptor < 0:
        raise SystemExit(f"{path}: {os.strerror(ctypes.get_errno())}")
    return int(descriptor)


def change(what: str, *words: str) -> bytes:
    if what == "name":
        return attribute(IFLA_XDP_LUA, words[0].encode() + b"\0")
    new, old = (struct.pack("=i", program(path)) for path in words)
    return (
        attribute(IFLA_XDP_FD, new)
        + attribute(IFLA_XDP_FLAGS, struct.pack("=I", REPLACE))
        + attribute(IFLA_XDP_EXPECTED_FD, old)
    )


def main() -> None:
    device, *words = sys.argv[1:]
    index = socket.if_nametoindex(device)
    body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
    body += attribute(IFLA_XDP | NLA_F_NESTED, change(*words))
    flags = NLM_F_REQUEST | NLM_F_ACK
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        link.send(struct.pack("=IHHII", 16 + len(body), RTM_SETLINK, flags, 1, 0) + body)
        answer = link.recv(65536)
    _, kind, *_ = struct.unpack_from("=IHHII", answer)
    assert kind == NLMSG_ERROR
    (error,) = struct.unpack_from("=i", answer, 16)
    print(errno.errorcode[-error] if error else "done")


main()
