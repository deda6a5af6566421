"""Locks between processes of one machine: `flock`, which the kernel gives back however a process ends.

A forked child inherits the handles, and a lock is held until all handles are closed: so a child closes them at once.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cache.fork import fork_lock
from cache.storage import StoppedError

POLL = 0.02
"""Seconds between two looks at a lock that another process holds: one can stop waiting, which `flock` cannot."""


_handles = set[int]()
_handles_lock = fork_lock()


def open_lock(path: Path) -> int:
    """Open a lock file, which is made if it is not there; gives its handle, which is `close_lock`'s to close."""
    with _handles_lock:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        _handles.add(handle)
    return handle


def close_lock(handle: int) -> None:
    """Close a lock file, and so give its lock back."""
    with _handles_lock:
        if handle in _handles:  # not in a child forked since, where the number may be another file's
            _handles.remove(handle)
            os.close(handle)


def _close_inherited() -> None:
    while _handles:
        os.close(_handles.pop())


os.register_at_fork(after_in_child=_close_inherited)


def lock_file(path: Path, stop: threading.Event, *, shared: bool = False) -> int:
    """Open a file, which is made if it is not there, and lock it; `close_lock` gives the lock back.

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
        handle = open_lock(path)
        if not try_lock(handle, shared=shared):
            close_lock(handle)
            return None
        if os.fstat(handle).st_nlink:
            return handle
        close_lock(handle)  # it was removed meanwhile, and locks nothing any more


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
        close_lock(handle)
