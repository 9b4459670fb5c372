# SPDX-License-Identifier: GPL-2.0-only
"""Run inside the guest: clients and servers that look at what hooks do to bytes.

python3 clients.py WHAT ...        one of the functions below
"""

import contextlib
import hashlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from flow import enter


def flood(sender: str, address: str, seconds: str) -> None:
    """Datagrams as fast as they go; prints how many were sent."""
    enter(sender)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    here = socket.socket(family, socket.SOCK_DGRAM)
    end, count = time.monotonic() + float(seconds), 0
    while time.monotonic() < end:
        for port in range(9000, 9100):
            try:
                here.sendto(b"flood", (address, port))
            except OSError:
                continue
            count += 1
    print(count)


def tap(sender: str, receiver: str, device: str, address: str) -> None:
    """What a packet socket sees of a datagram, and what its receiver does."""
    enter(receiver)
    everything = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    everything.bind((device, 0))
    everything.settimeout(2)
    there = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    there.bind((address, 9999))
    there.settimeout(2)
    enter(sender)
    here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    here.sendto(b"lab", (address, 9999))
    print(there.recv(16).decode())
    while True:
        frame = everything.recv(2048)
        if frame[23:24] == b"\x11":
            print(frame[42:45].decode())
            return


def file(sender: str, receiver: str, address: str) -> None:
    """Send a file's pages over TCP; whether the file stayed, and how many bytes of 0xaa came."""
    pages = Path("/tmp/pages")
    pages.write_bytes(bytes(range(256)) * 1024)
    before = hashlib.sha256(pages.read_bytes()).digest()
    enter(receiver)
    server = socket.create_server((address, 9999))
    counts: list[int] = []

    def receive() -> None:
        peer, _ = server.accept()
        while part := peer.recv(1 << 16):
            counts.append(part.count(b"\xaa"))

    thread = threading.Thread(target=receive)
    thread.start()
    enter(sender)
    with socket.create_connection((address, 9999)) as here, pages.open("rb") as content:
        here.sendfile(content)
    thread.join(20)
    print(before == hashlib.sha256(pages.read_bytes()).digest(), sum(counts))


def ends(
    sender: str, receiver: str, address: str, port: int, seconds: float
) -> tuple[socket.socket, socket.socket]:
    """A socket to send from, and one bound in the other namespace that waits so long."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    enter(receiver)
    there = socket.socket(family, socket.SOCK_DGRAM)
    there.bind((address, port))
    there.settimeout(seconds)
    enter(sender)
    return socket.socket(family, socket.SOCK_DGRAM), there


def big(sender: str, receiver: str, address: str, size: str) -> None:
    """One datagram of many fragments; its first and last byte as they come."""
    here, there = ends(sender, receiver, address, 9999, 3)
    here.sendto(b"<" + bytes(int(size) - 2) + b">", (address, 9999))
    try:
        came = there.recv(1 << 16)
        print(len(came), came[:1].decode(), came[-1:].decode())
    except TimeoutError:
        print("lost")


def answer(sender: str, receiver: str, address: str, words: str) -> None:
    """Send a file from port 53; what came of it, in hexadecimal."""
    here, there = ends(sender, receiver, address, 9999, 3)
    here.bind(("", 53))
    here.sendto(Path(words).read_bytes(), (address, 9999))
    try:
        print(there.recv(1 << 16).hex())
    except TimeoutError:
        print("lost")


def gso(address: str, way: str, size: str, words: str) -> None:
    """Send a file at once from a to b as datagrams of so many bytes, from port 53 ("answers") to
    9999 or from there to 53 ("questions"); what came, in hexadecimal, and how many came back."""
    ports = (53, 9999) if way == "answers" else (9999, 53)
    here, there = ends("a", "b", address, ports[1], 1)
    here.bind(("", ports[0]))
    here.settimeout(0.5)
    here.setsockopt(socket.IPPROTO_UDP, 103, int(size))  # UDP_SEGMENT
    here.sendto(Path(words).read_bytes(), (address, ports[1]))
    back = 0
    with contextlib.suppress(TimeoutError):
        while True:
            print(there.recv(1 << 16).hex())
    with contextlib.suppress(TimeoutError):
        while here.recv(1 << 16):
            back += 1
    print(back)


def train(sender: str, receiver: str, address: str, count: str, port: str = "9999") -> None:
    """Datagrams of 1000 bytes in one buffer, sent to 9999; of each that came to a port:
    number, size, bytes of 0xaa."""
    here, there = ends(sender, receiver, address, int(port), 2)
    here.setsockopt(socket.IPPROTO_UDP, 103, 1000)  # UDP_SEGMENT
    here.sendto(b"".join(bytes([number] * 1000) for number in range(int(count))), (address, 9999))
    with contextlib.suppress(TimeoutError):
        for _ in range(int(count)):
            came = there.recv(1 << 16)
            print(f"{came[0]}:{len(came)}:{came.count(0xAA)}")


def sctp(sender: str, receiver: str, address: str, size: str) -> None:
    """Send so many bytes over SCTP, many of a packet's at once; whether they came as they were."""
    sent = os.urandom(1 << 15) * (int(size) >> 15)
    came = bytearray()
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    enter(receiver)
    there = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP)
    there.bind((address, 9999))
    there.listen()

    def receive() -> None:
        peer, _ = there.accept()
        while part := peer.recv(1 << 16):
            came.extend(part)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    enter(sender)
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_SCTP) as here:
        here.settimeout(20)
        here.connect((address, 9999))
        for start in range(0, len(sent), 1 << 15):
            here.sendall(sent[start : start + (1 << 15)])
    thread.join(20)
    print(len(came), bytes(came) == sent)


def connect(sender: str, address: str, port: str) -> None:
    """How a TCP connection begins: "open", or the error's name."""
    enter(sender)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    here = socket.socket(family, socket.SOCK_STREAM)
    here.settimeout(3)
    try:
        here.connect((address, int(port)))
        print("open")
    except TimeoutError:
        print("ETIMEDOUT")
    except OSError as error:
        print(error.__class__.__name__)


def ask(sender: str, address: str, port: str, question: str) -> None:
    """Send a datagram, print the answer and whose it is, or the error's name."""
    enter(sender)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    here = socket.socket(family, socket.SOCK_DGRAM)
    here.settimeout(2)
    here.connect((address, int(port)))
    # A packet that a hook drops on its way out is the sender's error.
    with contextlib.suppress(PermissionError):
        here.send(question.encode())
    try:
        print(here.recv(2048).decode())
    except TimeoutError:
        print("silence")
    except OSError as error:
        print(error.__class__.__name__)


def twice(sender: str, receiver: str, address: str, port: str) -> None:
    """A datagram there, one back, and another there by the same way; prints what came last."""
    here, there = ends(sender, receiver, address, int(port), 3)
    here.connect((address, int(port)))
    here.send(b"lab")
    _, who = there.recvfrom(16)
    there.sendto(b"ok", who)
    here.settimeout(3)
    here.recv(16)
    here.send(b"again")
    print(there.recv(16).decode())


def say(sender: str, address: str, port: str, words: str) -> None:
    """Send a file over TCP; print how it ended."""
    enter(sender)
    here = socket.create_connection((address, int(port)), timeout=10)
    hear(here, lambda: here.sendall(Path(words).read_bytes()))


def hear(here: socket.socket, speak: Callable[[], object]) -> None:
    """Say something, listen to the end; print how it ended."""
    try:
        speak()
        here.shutdown(socket.SHUT_WR)
        while here.recv(4096):
            pass
        print("end")
    except OSError as error:
        # Whichever call comes after the reset says it in its own way.
        print("silence" if isinstance(error, TimeoutError) else "reset")


def say_at_once(sender: str, address: str, port: str, words: str) -> None:
    """The same as say(), with the file in the SYN (MSG_FASTOPEN), if the client may."""
    enter(sender)
    # Without a time limit, for which Python would not wait for the connection.
    here = socket.socket()
    question = Path(words).read_bytes()
    hear(here, lambda: here.sendto(question, 0x20000000, (address, int(port))))


def say_late(sender: str, address: str, port: str, words: str, before: str) -> None:
    """The same as say(), but a command comes between the connection and the file."""
    enter(sender)
    here = socket.create_connection((address, int(port)), timeout=10)
    subprocess.run(before, shell=True, check=True, stdout=subprocess.DEVNULL)
    hear(here, lambda: here.sendall(Path(words).read_bytes()))


def say_urgently(sender: str, address: str, port: str, words: str, where: str) -> None:
    """The same as say(), with an urgent byte in the midst of the file."""
    enter(sender)
    here = socket.create_connection((address, int(port)), timeout=10)
    content = Path(words).read_bytes()
    at = content.index(where.encode())

    def speak() -> None:
        here.sendall(content[:at])
        here.send(b"!", socket.MSG_OOB)
        here.sendall(content[at:])

    hear(here, speak)


def crowd(sender: str, receiver: str, address: str, count: str, words: str) -> None:
    """So many connections to port 443 at once, each of which says a file's beginning."""
    enter(receiver)
    server = socket.create_server((address, 443), backlog=int(count))
    enter(sender)
    crowd = [socket.create_connection((address, 443), timeout=10) for _ in range(int(count))]
    content = Path(words).read_bytes()
    for here in crowd:
        with contextlib.suppress(OSError):
            here.send(content)
    time.sleep(0.5)
    server.close()


def say_after_syn(sender: str, address: str, port: str, words: str) -> None:
    """The same as say(), but another SYN goes first, from a little further on."""
    enter(sender)
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    here = socket.create_connection((address, int(port)), timeout=10)
    near, own = here.getsockname()
    # Behind the header of IP the answer to the first.
    expected = struct.unpack_from("!I", raw.recv(128), 20 + 8)[0]
    ports = struct.pack("!HH", own, int(port))
    syn = ports + struct.pack("!IIBBH", expected + 1000 & 0xFFFFFFFF, 0, 0x50, 2, 512)
    ends = socket.inet_aton(near) + socket.inet_aton(address)
    raw.sendto(syn + summed(ends + b"\0\6\0\x14" + syn) + b"\0\0", (address, 0))
    time.sleep(0.2)
    hear(here, lambda: here.sendall(Path(words).read_bytes()))


def summed(data: bytes) -> bytes:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def flows(sender: str, receiver: str, address: str, count: str) -> None:
    """Short TCP connections to port 443; how many went well, and how many did not."""
    enter(receiver)
    server = socket.create_server((address, 443), backlog=64)
    # A process of its own: a thread would wait for its turn twice in each.
    child = os.fork()
    if not child:
        while True:
            peer, _ = server.accept()
            peer.sendall(peer.recv(16))
            peer.close()
    server.close()
    enter(sender)
    # In the kernel, which costs nothing: Python's own time limit polls before each call.
    limit = struct.pack("ll", 5, 0)
    good = bad = 0
    for number in range(int(count)):
        question = b"%d" % number
        here = socket.socket()
        here.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            here.connect((address, 443))
            here.sendall(question)
            good += here.recv(16) == question
        except OSError:
            bad += 1
        here.close()
    os.kill(child, signal.SIGKILL)
    print(good, bad)


def big_tcp(namespace: str, device: str, size: str) -> None:
    """Have TCP make super packets of up to so many bytes; not every `ip` can for IPv4."""
    enter(namespace)
    near = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)  # NETLINK_ROUTE
    # RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK; IFLA_GSO_MAX_SIZE, IFLA_GSO_IPV4_MAX_SIZE.
    body = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex(device), 0, 0)
    body += b"".join(struct.pack("=HHI", 8, kind, int(size)) for kind in (41, 63))
    near.send(struct.pack("=IHHII", 16 + len(body), 16, 5, 1, 0) + body)
    error = struct.unpack_from("=i", near.recv(4096), 16)[0]
    if error:
        raise SystemExit(f"{device}: {os.strerror(-error)}")


def stream(sender: str, receiver: str, address: str, size: str) -> None:
    """Send so many bytes over TCP at once; how many came."""
    enter(receiver)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.create_server((address, 9999), family=family)
    enter(sender)
    here = socket.create_connection((address, 9999))
    there, _ = server.accept()

    def send() -> None:
        here.sendall(bytes(int(size)))
        here.close()

    threading.Thread(target=send).start()
    count = 0
    while part := there.recv(1 << 16):
        count += len(part)
    print(count)


def queue(number: str) -> None:
    """Let the first packet of a queue pass."""
    near = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
    near.bind((0, 0))

    def tell(kind: int, attribute: int, value: bytes) -> None:
        # struct nlmsghdr, nfgenmsg, nlattr; subsystem 3 is that of queues.
        body = struct.pack("=BB", 0, 0) + struct.pack("!H", int(number))
        body += struct.pack("=HH", 4 + len(value), attribute) + value
        body += bytes(-len(body) % 4)
        near.send(struct.pack("=IHHII", 16 + len(body), 3 << 8 | kind, 1, 0, 0) + body)

    tell(2, 1, struct.pack("=BBH", 1, 0, 0))  # configure: bind
    tell(2, 2, struct.pack("!IB", 0, 1))  # configure: no bytes of the packets
    while True:
        message = near.recv(1 << 16)
        if struct.unpack_from("=H", message, 4)[0] == 3 << 8:
            # The first attribute begins with the packet's number; 1 is NF_ACCEPT.
            tell(1, 2, struct.pack("!I", 1) + message[24:28])
            return


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
