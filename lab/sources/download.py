# SPDX-License-Identifier: GPL-2.0-only
"""Fetch a file by URL; a broken download goes on where it stopped."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from pathlib import Path

from lab.errors import HostError, UserError
from lab.progress import Step, note, progress
from lab.store import NO_SPACE

CHUNK = 1 << 18
TIMEOUT = 60
"""Seconds without a byte after which a connection is given up."""
ATTEMPTS = 5
FIRST_PAUSE = 1.0
"""Seconds before the second attempt; each further pause is twice as long."""


class _Broken(Exception):
    """The connection ended too early; what has come is kept."""


def download(url: str, target: Path) -> Path:
    """Fetch a URL into a file.

    What has come stands in ``<target>.part`` until it is whole, so the next
    call, even that of another process, goes on there.

    Raises:
        UserError: the server has no such file, or the URL is none.
        HostError: the server cannot be reached, or breaks off time and again.
        OSError: the disk is full.
    """
    if target.exists():
        return target
    part = target.with_name(f"{target.name}.part")
    pause = FIRST_PAUSE
    with progress(f"download {target.name}") as step:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                _continue(url, part, step)
                break
            except (_Broken, urllib.error.URLError, http.client.HTTPException, OSError) as error:
                why = _explain(url, error)
                if attempt == ATTEMPTS:
                    raise HostError(
                        f"{url} broke off {ATTEMPTS} times: {why}",
                        right="run the command again, it goes on where this stopped",
                    ) from None
                note(f"{url}: {why}; again in {pause:g} s")
                time.sleep(pause)
                pause *= 2
    part.replace(target)
    return target


def _continue(url: str, part: Path, step: Step) -> None:
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            # All of it is here, or it is not the same file any more.
            if error.headers.get("Content-Range") == f"bytes */{have}":
                return
            part.unlink()
            raise _Broken("the file on the server has changed") from None
        raise
    with answer:
        resumed = answer.status == http.client.PARTIAL_CONTENT
        start = have if resumed else 0
        length = answer.headers.get("Content-Length")
        total = None if length is None else start + int(length)
        _receive(answer, part, start=start, total=total, step=step)


def _receive(
    answer: http.client.HTTPResponse, part: Path, *, start: int, total: int | None, step: Step
) -> None:
    with part.open("ab" if start else "wb") as file:
        done = start
        step.update(done, total=total)
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            step.update(done)
    if total is not None and done < total:
        raise _Broken(f"{done} of {total} bytes came")


def _explain(url: str, error: Exception) -> str:
    """What is wrong; raises at once what no second attempt can mend."""
    if isinstance(error, urllib.error.HTTPError):
        # 408, 429 and all of 5xx may pass.
        if error.code not in (408, 429) and error.code < 500:
            raise UserError(
                f"the server refuses {url}: {error.code} {error.reason}",
                right="see that the URL is right",
            ) from None
        return f"{error.code} {error.reason}"
    if isinstance(error, http.client.InvalidURL):
        raise UserError(f"{url} is no URL: {error}") from None
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        raise error  # the store says whose disk it is
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    return str(error) or type(error).__name__
