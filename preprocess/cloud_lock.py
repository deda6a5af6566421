"""One build at a time in a place in object storage: a lock that its holder has to remove."""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
import psutil

from cache import files
from cache.errors import CacheError, StorageError
from cache.place import StorageUrl


class _Holder(msgspec.Struct, frozen=True):
    host: str
    process: int
    started: float
    locked: str
    word: str = ""


@contextmanager
def lock_url(path: StorageUrl) -> Iterator[None]:
    """Hold a lock within the block: an object that only one process can create.

    Other than the kernel's, it stays if its holder is killed. The next build on the same machine finds that out; on
    another one a person has to. Where a server lets many create the same object (old ones that speak S3 do), it is the
    user who sees to it that only one build at a time writes there.

    Raises:
        CacheError: another process holds it.
        StorageError: it cannot be written.
    """
    this = psutil.Process()
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    # The word tells two builds of one process apart.
    holder = _Holder(socket.gethostname(), this.pid, this.create_time(), now, uuid.uuid4().hex)
    mine = msgspec.json.encode(holder)
    if not _take(path, mine):
        other = _read(path)
        if other and _is_dead(other):
            files.remove(path)
        if not _take(path, mine):
            other = _read(path) or other
            told = f"process {other.process} on {other.host}, since {other.locked}" if other else "another process"
            raise CacheError(
                f"{path.parent} is being built by {told}; wait for it, or stop it; if it was killed, remove {path}"
            )
    try:
        yield
    finally:
        with suppress(StorageError):  # the error that led here is the one to tell
            files.remove(path)


def _take(path: StorageUrl, mine: bytes) -> bool:
    return files.create(path, mine) and files.read(path) == mine


def _read(path: StorageUrl) -> _Holder | None:
    try:
        return msgspec.json.decode(files.read(path), type=_Holder)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _is_dead(holder: _Holder) -> bool:
    """Whether a holder was a process of this machine and is no more."""
    if holder.host != socket.gethostname():
        return False
    try:
        started: float = psutil.Process(holder.process).create_time()
    except psutil.NoSuchProcess:
        return True
    return abs(started - holder.started) > 1  # else another process has its number now
