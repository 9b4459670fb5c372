# SPDX-License-Identifier: GPL-2.0-only
"""A broken download goes on where it stopped; what cannot be mended is said at once."""

from __future__ import annotations

import errno
import http.client
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.errors import HostError, UserError
from lab.sources import download as module
from lab.sources.download import download

CONTENT = bytes(range(256)) * 4096


class Server(ThreadingHTTPServer):
    """Serves CONTENT; breaks off after so many bytes, as often as it is told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.breaks: list[int] = []
        self.ranges = True
        self.requests: list[str | None] = []
        self.status = 200

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/linux.tar"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.requests.append(wanted)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        found = re.match(r"bytes=(\d+)-", wanted or "")
        start = int(found[1]) if found and self.server.ranges else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = start + self.server.breaks.pop(0) if self.server.breaks else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_whole(server: Server, tmp_path: Path) -> None:
    assert download(server.url, tmp_path / "f").read_bytes() == CONTENT
    assert server.requests == [None]
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_goes_on_where_it_broke(server: Server, tmp_path: Path) -> None:
    server.breaks = [300_000, 500_000]
    assert download(server.url, tmp_path / "f").read_bytes() == CONTENT
    assert server.requests == [None, "bytes=300000-", "bytes=800000-"]


def test_goes_on_in_the_next_run(server: Server, tmp_path: Path) -> None:
    server.breaks = [100_000] * module.ATTEMPTS
    with pytest.raises(HostError, match=r"500000 of 1048576 bytes came.*goes on where"):
        download(server.url, tmp_path / "f")
    assert not (tmp_path / "f").exists()
    assert download(server.url, tmp_path / "f").read_bytes() == CONTENT
    assert server.requests[-1] == "bytes=500000-"


def test_a_server_without_ranges_begins_anew(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    server.breaks = [300_000]
    assert download(server.url, tmp_path / "f").read_bytes() == CONTENT


def test_all_was_there_but_the_name(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT)
    assert download(server.url, tmp_path / "f").read_bytes() == CONTENT


def test_another_file_than_the_one_begun(server: Server, tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(CONTENT * 2)
    assert download(server.url, tmp_path / "f").read_bytes() == CONTENT


def test_not_found_is_not_tried_again(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(UserError, match="404"):
        download(server.url, tmp_path / "f")
    assert len(server.requests) == 1


def test_a_busy_server_is_tried_again(server: Server, tmp_path: Path) -> None:
    server.status = 503
    with pytest.raises(HostError, match="503"):
        download(server.url, tmp_path / "f")
    assert len(server.requests) == module.ATTEMPTS


def test_nobody_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)
    with Server() as gone:
        url = gone.url
    with pytest.raises(HostError, match="refused"):
        download(url, tmp_path / "f")


@pytest.mark.parametrize(
    ("error", "kind"),
    [(OSError(errno.ENOSPC, "full"), OSError), (http.client.InvalidURL("port"), UserError)],
)
def test_what_no_second_attempt_can_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception]
) -> None:
    attempts = []

    def fails(*_: object) -> None:
        attempts.append(1)
        raise error

    monkeypatch.setattr(module, "_continue", fails)
    with pytest.raises(kind):
        download("http://host:port/linux.tar", tmp_path / "linux.tar")
    assert len(attempts) == 1
