"""One file fetched over HTTP into a `.part` file, resumed as often as the network makes it necessary.

Nothing is noted of the version on the server that a part belongs to: the caller compares the hash of the whole file.
"""

from __future__ import annotations

import contextlib
import random
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.client import HTTPException, HTTPResponse
from io import FileIO
from pathlib import Path
from typing import Literal, Protocol

from cache.messages import message, system_reason
from preprocess.download.plan import Archive, Plan
from preprocess.errors import DownloadError

CHUNK = 1 << 20  # most bytes read at a time
_TRANSIENT = (408, 425, 429)  # client errors that are worth another attempt, as are all from 500 on
TIMEOUT = 30.0  # seconds without a byte that count as a stall
ATTEMPTS = 8  # how many in a row may end without progress, and how often a file may be started anew

DELAY, LONGEST_DELAY = 1.0, 60.0
"""Seconds before the second attempt, doubled each time, with jitter; and the most of them."""

Stage = Literal["fetch", "check", "unpack"]


class Listener(Protocol):
    """Receives the events of a download."""

    def on_plan(self, plan: Plan) -> None:
        """Called before anything is fetched or unpacked; not called if nothing will be."""

    def stage(self, stage: Stage, archive: Archive) -> AbstractContextManager[Callable[[int, int], None]]:
        """A stage of an archive; the function that this yields is called with (bytes done, bytes in all)."""

    def on_retry(self, archive: Archive, reason: str, *, position: int, failures: int, delay: float) -> None:
        """An attempt failed and another follows in `delay` seconds.

        `position` bytes are there. `failures` attempts in a row, of at most `ATTEMPTS`, made no progress.
        """

    def on_restart(self, archive: Archive, reason: str, lost: int) -> None:
        """An archive is fetched from its first byte again, and `lost` bytes are dropped."""


class NetworkError(Exception):
    """A failure that another attempt may not meet."""


class RestartError(Exception):
    """The bytes that are there are of no use."""


def fetch(archive: Archive, url: str, path: Path, listener: Listener) -> int:
    """Fetch the missing bytes of `path` and append them.

    Bytes are written as soon as they arrive, so that a killed process loses none. The archive's size is that of the
    whole file; its hash is not checked here. Returns the number of bytes received, with those that had to be dropped.
    Raises `DownloadError`: the server lacks the file or has another one, or all attempts failed.
    """
    size, received, failures, restarts = archive.bytes, 0, 0, 0
    with _writing(path):
        file = path.open("ab", buffering=0)
    with file, listener.stage("fetch", archive) as update:
        update(min(file.tell(), size), size)
        while file.tell() != size:
            before = received
            try:
                if file.tell() > size:
                    raise RestartError(message("what is here is longer than COCO's"))
                for count in _receive(file, url, size):
                    received += count
                    update(file.tell(), size)
                reason = message("the connection was closed early")
            except NetworkError as error:
                reason = str(error)
            except RestartError as error:
                restarts += 1
                if restarts > ATTEMPTS:
                    what = message("had to be started anew {restarts} times", restarts=restarts)
                    raise _failed(url, what, file.tell(), size) from None
                listener.on_restart(archive, str(error), file.tell())
                file.truncate(0)
                file.seek(0)
                continue
            if file.tell() == size:
                break
            failures = 0 if received > before else failures + 1
            if failures >= ATTEMPTS:
                values = {"failures": failures, "reason": reason}
                what = message("{failures} attempts in a row without a byte, the last one: {reason}", **values)
                raise _failed(url, what, file.tell(), size)
            delay = min(LONGEST_DELAY, DELAY * 2 ** max(0, failures - 1)) * random.uniform(0.5, 1.0)
            listener.on_retry(archive, reason, position=file.tell(), failures=failures, delay=delay)
            time.sleep(delay)
    return received


def _failed(url: str, what: str, have: int, size: int) -> DownloadError:
    values = {"url": url, "what": what, "have": have, "size": size}
    return DownloadError(
        "{url}: {what}; check the connection, then run the same command again: {have:,} of {size:,} bytes are kept",
        **values,
    )


def _receive(file: FileIO, url: str, size: int) -> Iterator[int]:
    """Request the rest of a file and append it; yields the number of bytes of each piece.

    Raises:
        NetworkError: no answer, or the connection fails or stalls.
        RestartError: the server does not send the rest.
        DownloadError: the file does not exist, is not one of `size` bytes, or cannot be written.
    """
    position = file.tell()
    request = urllib.request.Request(url, headers={"User-Agent": "maskcache", "Accept-Encoding": "identity"})
    if position:
        request.add_header("Range", f"bytes={position}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            _check_answer(url, response, size, position)
            while position < size and (data := response.read1(CHUNK)):
                position += len(data)
                if position > size:
                    raise DownloadError(
                        "{url} sends more than the {size:,} bytes of COCO's: it is another file; "
                        "try another --base-url",
                        url=url,
                        size=size,
                    )
                _append(file, data)
                yield len(data)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error, size) from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                "{url}: {reason}; try http://, or another --base-url", url=url, reason=reason.verify_message
            ) from None
        if isinstance(reason, TimeoutError):
            raise NetworkError(message("no byte for {timeout:g} s", timeout=TIMEOUT)) from None
        words = system_reason(reason) if isinstance(reason, OSError) else str(reason)
        raise NetworkError(words or type(reason).__name__) from None


def _append(file: FileIO, data: bytes) -> None:
    left = memoryview(data)
    with _writing(file.name):
        while left:
            left = left[file.write(left) :]


@contextlib.contextmanager
def _writing(path: Path | str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DownloadError(
            "cannot write {path}: {reason}; mend that and run the same command again, it goes on from there",
            path=path,
            reason=system_reason(error),
        ) from None


def _refusal(url: str, error: urllib.error.HTTPError, size: int) -> Exception:
    if error.code == 416:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if total and int(total[1]) != size:
            return _other_size(url, int(total[1]), size)
        return RestartError(message("the server refuses to go on from there"))
    said = f"{error.code} {error.reason}".strip()
    if error.code >= 500 or error.code in _TRANSIENT:
        return NetworkError(message("the server says {said}", said=said))
    return DownloadError(
        "{url}: the server says {said}; check the address, or name a mirror with --base-url", url=url, said=said
    )


def _check_answer(url: str, response: HTTPResponse, size: int, position: int) -> None:
    """Check that an answer has the bytes of a file of `size` bytes from `position` on."""
    if response.status == 200:
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) != size:
            raise _other_size(url, int(length), size)
        if position:
            raise RestartError(message("the server cannot go on within a file"))
        return
    said = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", said)
    if found and found[2] not in (str(size), "*"):
        raise _other_size(url, int(found[2]), size)
    if response.status != 206 or not found or int(found[1]) != position:
        values = {"status": response.status, "said": said, "position": position}
        raise DownloadError(
            "{url}: status {status} with Content-Range {said!r}, not the bytes from {position:,} on; "
            "try another --base-url",
            url=url,
            **values,
        )


def _other_size(url: str, found: int, size: int) -> DownloadError:
    return DownloadError(
        "{url} has {found:,} bytes, not the {size:,} of COCO's: it is another file; try another --base-url",
        url=url,
        found=found,
        size=size,
    )
