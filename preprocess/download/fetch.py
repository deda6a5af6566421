"""One file fetched over HTTP into a `.part` file, resumed as often as the network makes it necessary."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import re
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, Literal, Protocol
from urllib.parse import urlsplit

from cache.atomic import write_atomically
from cache.messages import message, system_reason
from preprocess.download.plan import Archive, Plan, Retries
from preprocess.errors import DownloadError

CHUNK = 1 << 20
"""Most bytes read at a time."""

_TRANSIENT = (408, 425, 429)
"""Client errors that are worth another attempt, as are all from 500 on."""

Stage = Literal["fetch", "check", "unpack"]
RestartReason = Literal["ignored", "refused", "changed", "long"]
"""The server ignores ranges, refuses this one, or has another file than before; or the part is too long."""


class Listener(Protocol):
    """Receives the events of a download."""

    def on_plan(self, plan: Plan) -> None:
        """Called before anything is fetched or unpacked; not called if nothing will be."""

    def stage(self, stage: Stage, archive: Archive) -> AbstractContextManager[Callable[[int, int], None]]:
        """A stage of an archive; the function that this yields is called with (bytes done, bytes in all)."""

    def on_retry(
        self, archive: Archive, reason: str, *, position: int, failures: int, attempts: int, delay: float
    ) -> None:
        """An attempt failed and another follows in `delay` seconds.

        `position` bytes are there. `failures` attempts in a row, of at most `attempts`, made no progress.
        """

    def on_restart(self, archive: Archive, reason: RestartReason, lost: int) -> None:
        """An archive is fetched from its first byte again, and `lost` bytes are dropped."""


class NetworkError(Exception):
    """A failure that another attempt may not meet."""


class RestartError(Exception):
    """The bytes that are there are of no use; the argument is the `RestartReason`."""

    def __init__(self, reason: RestartReason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stamp:
    """The headers by which a server tells versions of a file apart; empty where it sends none."""

    etag: str = ""
    modified: str = ""

    @property
    def if_range(self) -> str:
        """Value of `If-Range`: the server sends the rest only of the same version. Empty if there is none to send."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    def differs(self, other: Stamp) -> bool:
        """Whether the two are known to belong to different versions."""
        if self.etag and other.etag:
            return self.etag != other.etag
        return bool(self.modified and other.modified) and self.modified != other.modified


class Part:
    """An open `.part` file with a note beside it: which address and which version of the file its bytes are from.

    Bytes are written as soon as they arrive, so that a killed process loses none.
    """

    def __init__(self, path: Path, url: str) -> None:
        self._path, self._url = path, url
        self._note = path.with_name(f"{path.name}.json")
        with _writing(path):
            self._file = path.open("ab", buffering=0)
        self.position = self._file.tell()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def stamp(self) -> Stamp:
        """Version of the bytes that are there; empty if they came from another address."""
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return Stamp(etag=note["etag"], modified=note["modified"]) if note["url"] == self._url else Stamp()
        except (OSError, ValueError, KeyError, TypeError):
            return Stamp()

    def sign(self, stamp: Stamp) -> None:
        """Write the note."""
        with _writing(self._note):
            write_atomically(self._note, json.dumps({"url": self._url, **dataclasses.asdict(stamp)}).encode())

    def clear(self) -> None:
        """Drop all bytes."""
        self._file.truncate(0)
        self.position = 0

    def append(self, data: bytes) -> None:
        """Write at the end.

        Raises:
            DownloadError: the data cannot be written, as when the disk is full.
        """
        left = memoryview(data)
        with _writing(self._path):
            while left:
                count = self._file.write(left)
                self.position += count
                left = left[count:]


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DownloadError(
            "cannot write {path}: {strerror}; mend that and run the same command again, it goes on from there",
            path=path,
            strerror=system_reason(error),
        ) from None


def fetch(archive: Archive, url: str, path: Path, patience: Retries, listener: Listener) -> int:
    """Fetch the missing bytes of `path` and append them.

    Args:
        archive: its size is that of the whole file; its hash is not checked here.
        url: its address.
        path: the `.part` file; a note beside it names the address and version of its bytes.
        patience: timeouts and numbers of attempts.
        listener: receives progress, retries and restarts.

    Returns:
        Number of bytes received, with those that had to be dropped.

    Raises:
        DownloadError: the server lacks the file or has another one, or all attempts failed.
    """
    size, received, failures, restarts = archive.bytes, 0, 0, 0
    with contextlib.closing(Part(path, url)) as part, listener.stage("fetch", archive) as update:
        update(min(part.position, size), size)
        while part.position != size:
            before = received
            try:
                if part.position > size:
                    raise RestartError("long")
                for count in _receive(part, url, size, patience.timeout):
                    received += count
                    update(part.position, size)
                if part.position == size:
                    break
                reason = message("the connection was closed early")
            except NetworkError as error:
                reason = str(error)
            except RestartError as error:
                restarts += 1
                if restarts > patience.attempts:
                    raise _failed(
                        url, message("had to be started anew {restarts} times", restarts=restarts), part.position, size
                    ) from None
                listener.on_restart(archive, error.reason, part.position)
                part.clear()
                continue
            failures = 0 if received > before else failures + 1
            if failures >= patience.attempts:
                what = message(
                    "{failures} attempts in a row without a byte, the last one: {reason}",
                    failures=failures,
                    reason=reason,
                )
                raise _failed(url, what, part.position, size)
            delay = min(patience.longest_delay, patience.delay * 2 ** max(0, failures - 1)) * random.uniform(0.5, 1.0)
            listener.on_retry(
                archive, reason, position=part.position, failures=failures, attempts=patience.attempts, delay=delay
            )
            time.sleep(delay)
    return received


def _failed(url: str, what: str, have: int, size: int) -> DownloadError:
    return DownloadError(
        "{url}: {what}; check the connection, then run the same command again: {have:,} of {size:,} bytes are kept",
        url=url,
        what=what,
        have=have,
        size=size,
    )


def _receive(part: Part, url: str, size: int, timeout: float) -> Iterator[int]:
    """Request the rest of a file and append it; yields the number of bytes of each piece.

    Raises:
        NetworkError: no answer, or the connection fails or stalls.
        RestartError: the rest does not belong to the bytes that are there.
        DownloadError: the file does not exist, or is not one of `size` bytes.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "maskcache", "Accept-Encoding": "identity"})
    if part.position:
        request.add_header("Range", f"bytes={part.position}-")
        if part.stamp.if_range:
            request.add_header("If-Range", part.stamp.if_range)
    try:
        with urllib.request.build_opener(_Redirects()).open(request, timeout=timeout) as response:
            start = _start(url, response, size, part.position)
            headers = response.headers
            stamp = Stamp(etag=headers.get("ETag", ""), modified=headers.get("Last-Modified", ""))
            if part.position and (start == 0 or part.stamp.differs(stamp)):
                raise RestartError("changed" if part.stamp.differs(stamp) else "ignored")
            if part.position == 0 or part.stamp != stamp:
                part.sign(stamp)
            while part.position < size and (data := response.read1(CHUNK)):
                if part.position + len(data) > size:
                    raise DownloadError(
                        "{url} sends more than the {size:,} bytes of COCO's: it is another file; "
                        "try another --base-url",
                        url=url,
                        size=size,
                    )
                part.append(data)
                yield len(data)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error, size) from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(
                "{url}: {verify_message}; try http://, or another --base-url",
                url=url,
                verify_message=reason.verify_message,
            ) from None
        if isinstance(reason, TimeoutError):
            raise NetworkError(message("no byte for {timeout:g} s", timeout=timeout)) from None
        words = reason.strerror if isinstance(reason, OSError) else None
        raise NetworkError(str(words or reason or type(reason).__name__)) from None


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to HTTP and HTTPS only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise DownloadError(
                "{full_url} leads to {newurl}, which is not http or https; try another --base-url",
                full_url=req.full_url,
                newurl=newurl,
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refusal(url: str, error: urllib.error.HTTPError, size: int) -> Exception:
    if error.code == 416:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        return _other_size(url, int(total[1]), size) if total and int(total[1]) != size else RestartError("refused")
    said = f"{error.code} {error.reason}".strip()
    if error.code >= 500 or error.code in _TRANSIENT:
        return NetworkError(message("the server says {said}", said=said))
    return DownloadError(
        "{url}: the server says {said}; check the address, or name a mirror with --base-url", url=url, said=said
    )


def _start(url: str, response: HTTPResponse, size: int, position: int) -> int:
    """The byte of the file at which an answer begins: 0 or `position`."""
    length = response.headers.get("Content-Length", "")
    count = int(length) if length.isdecimal() else None
    if response.status == 200:
        if count is not None and count != size:
            raise _other_size(url, count, size)
        return 0
    said = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", said)
    if response.status != 206 or not found:
        raise DownloadError(
            "{url}: status {status} with Content-Range {said!r}; try another --base-url",
            url=url,
            status=response.status,
            said=said,
        )
    start, end = int(found[1]), int(found[2])
    if found[3] not in (str(size), "*"):
        raise _other_size(url, int(found[3]), size)
    if start != position or not start <= end < size:
        asked = message("bytes {position:,} to {size:,}", position=position, size=size - 1)
        raise DownloadError(
            "{url} sends bytes {start:,} to {end:,} instead of {asked}; try another --base-url",
            url=url,
            start=start,
            end=end,
            asked=asked,
        )
    if count is not None and count != end - start + 1:
        raise DownloadError(
            "{url} sends {count:,} bytes as the {end:,} of {said}; try another --base-url",
            url=url,
            count=count,
            end=end - start + 1,
            said=said,
        )
    return start


def _other_size(url: str, found: int, size: int) -> DownloadError:
    return DownloadError(
        "{url} has {found:,} bytes, not the {size:,} of COCO's: it is another file; try another --base-url",
        url=url,
        found=found,
        size=size,
    )
