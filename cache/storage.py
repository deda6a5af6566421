"""Locations: a folder of this machine, or a URL in object storage, which is read and written through fsspec.

No other file uses fsspec. Requests that fail are retried a limited number of times.

What a user has set up for the protocol's own client holds here: credentials, region and server are those of
`AWS_PROFILE`, `AWS_ENDPOINT_URL`, `~/.aws/config` and so on, or of fsspec's own `FSSPEC_S3_...` variables.
"""

from __future__ import annotations

import dataclasses
import errno
import os
import random
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, TypeVar

from cache.errors import StorageError
from cache.messages import Message, install, joined, message


class StorageUrl(PurePosixPath):
    """A location in object storage, as `s3://bucket/cache`.

    It joins names as a path does, and has none of the methods by which a local file is opened: whoever means to read
    one goes through `cache.storage`.
    """

    def __str__(self) -> str:
        scheme, _, rest = super().__str__().partition(":")
        return f"{scheme}://{rest.removeprefix('/')}"  # of two slashes, a path keeps one or none


def is_url(text: str | PurePath) -> bool:
    """Whether it names a location in object storage."""
    if isinstance(text, PurePath):
        return isinstance(text, StorageUrl)
    return "://" in text and not text.startswith(("file://", "local://"))


def place(text: str | PurePath) -> PurePath:
    """The location that a user named: a `StorageUrl` if it has a protocol that is not `file`, else a `Path`."""
    if isinstance(text, PurePath):
        return text
    if is_url(text):
        return StorageUrl(text)
    return Path(re.sub("^(file|local)://", "", text))


PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""The package that fsspec needs for a protocol."""

OWN_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})
"""Errors of the local disk, which another request does not mend."""

VARIABLES = ("AWS_", "FSSPEC_")
"""Prefixes of the environment variables that configure the clients."""

Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a request that failed is retried.

    It is not left to botocore: that does not retry a transfer that was cut off, cannot be stopped while it waits, does
    not say how often it retried, and serves one protocol.
    """

    attempts: int = 12  # the first one included: together they outlast a minute
    pause: float = 0.5  # seconds before the second attempt; doubled each time, with jitter
    longest: float = 20.0  # seconds that no pause exceeds
    seconds: float = 180.0  # after the first attempt, beyond which no other one begins


class StoppedError(Exception):
    """A transfer was stopped because its result is no longer wanted."""


_FAILED = {
    "read": message("{url} cannot be read: {reason}"),
    "listed": message("{url} cannot be listed: {reason}"),
    "written": message("{url} cannot be written: {reason}"),
    "copied": message("{url} cannot be copied: {reason}"),
    "removed": message("{url} cannot be removed: {reason}"),
}
"""What is said of a request that fails, by what it was to do."""


class Storage:
    """The files below a URL. Threads may share it; it may be sent to another process.

    Names are relative to the URL, with `/` between folders; an empty one is the URL itself. A file is whole once it is
    there: object stores show an object when all of it was sent.

    Each method raises `StorageError` when its last attempt has failed, or no attempt can succeed.

    `repeats` are the requests that failed and were retried so far in this process, `trouble` is why the latest of them
    failed. `stop` ends transfers and pauses with `StoppedError` once it is set.
    """

    def __init__(
        self, root: StorageUrl, retries: Retries | None = None, *, stop: threading.Event | None = None
    ) -> None:
        self.root, self._retries = root, retries or Retries()
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._opened: tuple[int, Any, str] | None = None
        self.repeats, self.trouble = 0, ""

    def read(self, name: str = "") -> bytes:
        """The bytes of a file. Raises `FileNotFoundError` if there is none."""
        data: bytes = self._do("read", name, lambda system, path: system.cat_file(path))
        return data

    def fetch(self, name: str, to: Path) -> None:
        """Copy a file to this machine, over what may be at `to`; if it fails, a part may be there.

        Raises `FileNotFoundError` if there is none, and other `OSError` if `to` cannot be written.
        """
        self._do("read", name, lambda system, path: system.get_file(path, str(to), callback=self._watch()))

    def write(self, name: str, data: bytes) -> None:
        """Store a file, over what may be there."""
        self._send(name, lambda system, path: system.pipe_file(path, data))

    def upload(self, source: Path, name: str) -> None:
        """Store a copy of a local file, over what may be there. Raises `OSError` if `source` cannot be read."""
        with source.open("rb"):  # else a source that is missing could not be told from a bucket that is
            self._send(name, lambda system, path: system.put_file(str(source), path, callback=self._watch()))

    def create(self, name: str, data: bytes) -> bool:
        """Store a file unless there is another one of this name; whether it is there now."""

        def put(system: Any, path: str) -> bool:
            try:
                system.pipe_file(path, data, mode="create")
            except FileExistsError:  # which an attempt before may have made, whose answer was lost
                found: bytes = system.cat_file(path)
                return found == data
            return True

        return self._send(name, put)

    def copy(self, name: str, to: PurePath) -> None:
        """Copy a file to a URL of the same bucket, over what may be there."""
        self._do("copied", name, lambda system, path: system.cp_file(path, system._strip_protocol(str(to))))

    def _send(self, name: str, request: Callable[[Any, str], Result]) -> Result:
        try:
            return self._do("written", name, request)
        except FileNotFoundError as error:
            raise StorageError(
                "{root} cannot be written: {reason}; make the bucket, or check its name",
                root=self.root / name,
                reason=_reason(error),
            ) from error

    def remove(self, name: str = "") -> None:
        """Remove a file, or all files below a folder; what is not there is removed already."""
        with suppress(FileNotFoundError):
            self._do("removed", name, lambda system, path: system.rm(path, recursive=True))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Bytes of each file below a folder, by its name relative to that folder; empty if there is no such folder."""

        def find(system: Any, path: str) -> dict[str, int]:
            start = len(path.rstrip("/")) + 1
            found = system.find(path, detail=True)
            return {name[start:]: int(entry["size"]) for name, entry in found.items() if len(name) > start}

        try:
            return self._do("listed", folder, find)
        except FileNotFoundError:
            return {}

    def names(self, folder: str = "") -> list[str]:
        """The files and folders in a folder, without what is in those; empty if there is no such folder."""

        def listed(system: Any, path: str) -> list[str]:
            return sorted(entry.rstrip("/").rpartition("/")[2] for entry in system.ls(path, detail=False))

        try:
            return self._do("listed", folder, listed)
        except FileNotFoundError:
            return []

    def read_ranges(self, ranges: list[tuple[str, int, int]]) -> list[bytes]:
        """Parts of files, at the same time: of each (name, first byte, byte after the last).

        Raises `FileNotFoundError` if one of the files is not there.
        """
        if not ranges:
            return []
        found: dict[int, bytes] = {}

        def read(system: Any, path: str) -> list[bytes]:
            # Those that came are not asked for again: of many at a time one or another would fail each time.
            wanted = [number for number in range(len(ranges)) if number not in found]
            names, starts, ends = zip(*(ranges[number] for number in wanted), strict=True)
            paths = [f"{path}/{name}" for name in names]
            answers = dict(zip(wanted, system.cat_ranges(paths, [*starts], [*ends], on_error="return"), strict=True))
            failures = [answer for answer in answers.values() if isinstance(answer, BaseException)]
            found.update((number, answer) for number, answer in answers.items() if answer not in failures)
            if failures:
                raise min(failures, key=lambda each: not isinstance(each, FileNotFoundError))
            return [found[number] for number in range(len(ranges))]

        return self._do("read", "", read)

    def _do(self, done: str, name: str, request: Callable[[Any, str], Result]) -> Result:
        """The result of a request, retried while it fails for a reason that may pass."""
        url = str(self.root / name)
        system, root = self._open()
        path = f"{root.rstrip('/')}/{name}" if name else root
        retries, begun, attempt = self._retries, time.monotonic(), 1
        while not self._stop.is_set():
            try:
                return request(system, path)
            except (FileNotFoundError, StoppedError):
                raise
            except Exception as error:  # each protocol's client has its own
                if isinstance(error, OSError) and error.errno in OWN_DISK:
                    raise
                reason = _reason(error)
                failed = Message(_FAILED[done], url=url, reason=reason)
                if remedy := _remedy(error):
                    raise StorageError("{failed}; {remedy}", failed=failed, remedy=remedy) from error
                pause = min(retries.pause * 2 ** (attempt - 1), retries.longest)
                spent = time.monotonic() - begun
                if attempt == retries.attempts or spent + pause > retries.seconds:
                    raise StorageError(
                        "{failed} ({attempts} attempts in {seconds:.0f} s); check the network and the server, then "
                        "run the same command again",
                        failed=failed,
                        attempts=attempt,
                        seconds=spent,
                    ) from error
            with self._lock:
                self.repeats += 1
                self.trouble = Message("{url}: {reason}", url=url, reason=reason)
            self._stop.wait(pause * random.uniform(0.5, 1.0))  # not all ranks at the same moment
            attempt += 1
        raise StoppedError(url)

    def _open(self) -> tuple[Any, str]:
        """fsspec's file system, and the URL as a path of it; opened when first needed, anew in a forked child."""
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                variables = tuple(sorted(item for item in os.environ.items() if item[0].startswith(VARIABLES)))
                system = _connect("/".join(str(self.root).split("/")[:3]), os.getpid(), variables)
                self._opened = os.getpid(), system, str(system._strip_protocol(str(self.root)))
            return self._opened[1], self._opened[2]

    def _watch(self) -> Any:
        """fsspec's callback of a transfer: it ends one that is to stop."""
        from fsspec.callbacks import Callback

        def check(*_: object, **__: object) -> None:
            if self._stop.is_set():
                raise StoppedError(str(self.root))

        return Callback(hooks={"stop": check})

    def __getstate__(self) -> dict[str, Any]:
        return {"root": self.root, "retries": self._retries}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def shard_files(path: Path) -> list[Path]:
    """The files of a local shard, sorted: itself, or those in its folder."""
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def remove(path: Path) -> None:
    """Delete a local file or folder, if it is there; of a link, the link and not what it leads to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@lru_cache(maxsize=16)
def _connect(root: str, _process: int, _variables: tuple[tuple[str, str], ...]) -> Any:
    """fsspec's file system for the URL of a bucket; one for all who ask, for it takes a while to make."""
    package = PACKAGES.get(root.partition(":")[0])
    command = joined(" ", filter(None, (install("cloud"), None if package == "s3fs" else package)))
    try:
        from fsspec.config import conf
        from fsspec.core import url_to_fs

        options: dict[str, Any] = {}
        if package == "s3fs":  # botocore would retry each request four times before it says that it failed
            own = conf.get("s3", {}).get("config_kwargs", {})
            options["config_kwargs"] = {**own, "retries": {"total_max_attempts": 1}}
        # What others write meanwhile must be seen, and only an instance of our own may be told to leave retries to us.
        system, _ = url_to_fs(root, use_listings_cache=False, skip_instance_cache=True, **options)
    except ImportError as error:
        raise StorageError(
            "{root} needs a package that is not installed ({error}): {install}", root=root, error=error, install=command
        ) from None
    except ValueError as error:
        raise StorageError(
            "{root} cannot be opened: {error}; use s3://BUCKET/FOLDER, or a folder", root=root, error=error
        ) from None
    if hasattr(system, "retries"):
        system.retries = 1
    return system


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:300] if text else type(error).__name__


def _remedy(error: Exception) -> str:
    """What to do about an error that no retry mends; empty if it may pass."""
    if isinstance(error, ImportError):
        return install("cloud")
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        return message(
            "give credentials with the right to it (for s3: AWS_PROFILE, or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY; for a server that is not Amazon's, AWS_ENDPOINT_URL)"
        )
    return ""
