# SPDX-License-Identifier: GPL-2.0-only
"""Run on machines of a network: a service that says which address it was reached at.

    python3 service.py serve PORT
    python3 service.py ask ADDRESS PORT COUNT

Asking prints the answers, a line each: the server's own address, and how many
bytes of the 128 KiB that were sent along came there.
"""

import socket
import sys
import threading

LOAD = bytes(range(256)) * 512


def answer(connection: socket.socket) -> None:
    with connection:
        good = got = 0
        while piece := connection.recv(65536):
            wanted = (LOAD * 2)[got % len(LOAD) :][: len(piece)]
            good += len(piece) if piece == wanted else 0
            got += len(piece)
        connection.sendall(f"{connection.getsockname()[0]} {good}\n".encode())


def serve(port: int) -> None:
    with socket.create_server(("", port), backlog=64) as listener:
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=answer, args=(connection,), daemon=True).start()


def ask(address: str, port: int, count: int) -> None:
    for _ in range(count):
        with socket.create_connection((address, port), timeout=20) as connection:
            connection.sendall(LOAD)
            connection.shutdown(socket.SHUT_WR)
            print(connection.makefile().read().strip())


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    ask(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
