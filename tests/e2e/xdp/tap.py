# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: what a kernel takes of the frames that a tap device is given.

    python3 tap.py DEVICE COMMAND

Makes the device, runs the command, writes frames numbered from 0 to 9, prints
the numbers of those that came as far as packet sockets.
"""

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys

TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 2, 0x1000
ALL, TYPE = 3, b"\x88\xb5"


def main() -> None:
    device, command = sys.argv[1:]
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", device.encode(), IFF_TAP | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", device, "up"], check=True)
    subprocess.run(command, shell=True, check=True)
    seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ALL))
    seen.bind((device, ALL))
    seen.settimeout(1)
    for number in range(10):
        os.write(tap, b"\xff" * 6 + b"\x02\0\0\0\0\x99" + TYPE + bytes([number] * 100))
    with contextlib.suppress(TimeoutError):
        while True:
            frame, sender = seen.recvfrom(2048)
            if sender[2] != socket.PACKET_OUTGOING and frame[12:14] == TYPE:
                print(frame[14], frame[20])


main()
