# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: what rtnetlink says of XDP on a device.

    python3 show_hook.py DEVICE

Prints IFLA_XDP_ATTACHED and IFLA_XDP_LUA: "2 test:drop", or "0 -" where
there is no hook.
"""

import socket
import struct
import sys
from collections.abc import Iterator

RTM_GETLINK = 18
NLM_F_REQUEST = 1
IFLA_XDP = 43
IFLA_XDP_ATTACHED = 2
IFLA_XDP_LUA = 9


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def main() -> None:
    index = socket.if_nametoindex(sys.argv[1])
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as link:
        body = struct.pack("=BxHiII", 0, 0, index, 0, 0)
        link.send(struct.pack("=IHHII", 16 + len(body), RTM_GETLINK, NLM_F_REQUEST, 1, 0) + body)
        answer = link.recv(65536)
    nest = dict(attributes(answer[32:]))[IFLA_XDP]
    xdp = dict(attributes(nest))
    name = xdp.get(IFLA_XDP_LUA, b"-\0").rstrip(b"\0").decode()
    print(xdp[IFLA_XDP_ATTACHED][0], name)


main()
