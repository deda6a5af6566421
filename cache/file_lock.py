"""Locks between processes of one machine: `flock`, which the kernel gives back however a process ends."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.storage import StoppedError

POLL = 0.02
"""Seconds between two looks at a lock that another process holds: one can stop waiting, which `flock` cannot."""


def lock_file(path: Path, stop: threading.Event, *, shared: bool = False) -> int:
    """Open a file, which is made if it is not there, and lock it; closing the handle gives the lock back.

    Args:
        path: of the file.
        stop: ends waiting.
        shared: with others that share; else alone.

    Raises:
        StoppedError: `stop` is set.
        OSError: the file cannot be opened.
    """
    while (handle := try_lock_file(path, shared=shared)) is None:
        if stop.wait(POLL):
            raise StoppedError(str(path))
    return handle


def try_lock_file(path: Path, *, shared: bool = False) -> int | None:
    """As `lock_file`, but None if another one is in the way."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not try_lock(handle, shared=shared):
            os.close(handle)
            return None
        if os.fstat(handle).st_nlink:
            return handle
        os.close(handle)  # it was removed meanwhile, and locks nothing any more


def try_lock(handle: int, *, shared: bool = False) -> bool:
    """Lock an open file, or turn its lock into the other kind, unless another one is in the way."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def locked(path: Path, stop: threading.Event) -> Iterator[int]:
    """Have a file locked for oneself within the block; gives its handle."""
    handle = lock_file(path, stop)
    try:
        yield handle
    finally:
        os.close(handle)
