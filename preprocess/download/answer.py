"""What a server answers when it is asked for the rest of a file."""

from __future__ import annotations

import re
import ssl
import urllib.error
import urllib.request
from http.client import HTTPException, HTTPMessage, HTTPResponse
from typing import IO
from urllib.parse import urlsplit

from preprocess.download.part import Stamp
from preprocess.errors import DownloadError

CHUNK = 1 << 20
"""Bytes that are asked for at once; what has come by then is returned."""

_MAY_PASS = (408, 425, 429)
"""Client errors that another attempt may not meet, as all of 500 and above."""


class NetworkError(Exception):
    """What another attempt may not meet."""


class RangeError(Exception):
    """The server has no such range (416)."""


class Answer:
    """The bytes of a file from `start` on."""

    def __init__(self, response: HTTPResponse, start: int, timeout: float) -> None:
        self._response, self._timeout = response, timeout
        self.start = start
        headers = response.headers
        self.stamp = Stamp(etag=headers.get("ETag", ""), modified=headers.get("Last-Modified", ""))

    def read(self) -> bytes:
        """What has come meanwhile, at least a byte; nothing at the end, be it the file's or only the connection's.

        Raises:
            NetworkError: the connection broke off or stalls.
        """
        try:
            return self._response.read1(CHUNK)
        except (OSError, HTTPException) as error:
            raise NetworkError(_reason(error, self._timeout)) from None

    def close(self) -> None:
        """Hang up."""
        self._response.close()


def ask(url: str, *, size: int, position: int, stamp: Stamp, timeout: float) -> Answer:
    """Ask for a file from a position on, or for all of it if its stamp is not the server's any more.

    Raises:
        NetworkError: there is no answer, or one that may pass.
        RangeError: the server has nothing from that position on.
        DownloadError: the file is not there, or its size is not `size`, or the answer begins elsewhere.
    """
    request = urllib.request.Request(url, headers={"User-Agent": "maskcache", "Accept-Encoding": "identity"})
    if position:
        request.add_header("Range", f"bytes={position}-")
        if stamp.if_range:
            request.add_header("If-Range", stamp.if_range)
    try:
        response = urllib.request.build_opener(_Redirects()).open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(url, error, size) from None
    except (OSError, HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url}: {reason.verify_message}; try http://, or another --base-url") from None
        raise NetworkError(_reason(reason, timeout)) from None
    try:
        return Answer(response, _start(url, response, size, position), timeout)
    except BaseException:
        response.close()
        raise


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows a server to HTTP and HTTPS only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise DownloadError(f"{req.full_url} leads to {newurl}, which is not http or https; try another --base-url")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _refusal(url: str, error: urllib.error.HTTPError, size: int) -> Exception:
    if error.code == 416:
        total = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        return _other_size(url, int(total[1]), size) if total and int(total[1]) != size else RangeError()
    said = f"{error.code} {error.reason}".strip()
    if error.code >= 500 or error.code in _MAY_PASS:
        return NetworkError(f"the server says {said}")
    return DownloadError(f"{url}: the server says {said}; check the address, or name a mirror with --base-url")


def _start(url: str, response: HTTPResponse, size: int, position: int) -> int:
    """At which byte of the file the answer begins."""
    length = response.headers.get("Content-Length", "")
    count = int(length) if length.isdecimal() else None
    if response.status == 200:
        if count is not None and count != size:
            raise _other_size(url, count, size)
        return 0
    said = response.headers.get("Content-Range", "")
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", said)
    if response.status != 206 or not found:
        raise DownloadError(f"{url}: status {response.status} with Content-Range {said!r}; try another --base-url")
    start, end = int(found[1]), int(found[2])
    if found[3] not in (str(size), "*"):
        raise _other_size(url, int(found[3]), size)
    if start != position or not start <= end < size:
        asked = f"bytes {position:,} to {size - 1:,}"
        raise DownloadError(f"{url} sends bytes {start:,} to {end:,} instead of {asked}; try another --base-url")
    if count is not None and count != end - start + 1:
        raise DownloadError(f"{url} sends {count:,} bytes as the {end - start + 1:,} of {said}; try another --base-url")
    return start


def _other_size(url: str, found: int, size: int) -> DownloadError:
    return DownloadError(
        f"{url} has {found:,} bytes, not the {size:,} of COCO's: it is another file; try another --base-url"
    )


def _reason(error: object, timeout: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no byte for {timeout:g} s"
    words = error.strerror if isinstance(error, OSError) else None
    return str(words or error or type(error).__name__)
