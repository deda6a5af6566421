"""Locks between processes of one machine: `flock`, which the kernel gives back however a process ends.

A forked child inherits open files, and a lock is held until all of its open files are closed: so a child closes them at
once.
"""

from __future__ import annotations

import fcntl
import os
import threading
import weakref
from io import FileIO
from pathlib import Path

from cache.fork import fork_lock
from cache.storage import StoppedError

POLL = 0.02
"""Seconds between two looks at a lock that another process holds: one can stop waiting, which `flock` cannot."""

# Files, and not their numbers, which are other files' once these are closed.
_open_files = weakref.WeakSet[FileIO]()
_opening = fork_lock()


def _close_inherited() -> None:
    for file in _open_files:
        file.close()


os.register_at_fork(after_in_child=_close_inherited)


def lock_file(path: Path, stop: threading.Event, *, shared: bool = False) -> FileIO:
    """Open a file, made if it is not there, and lock it until the file is closed.

    Args:
        path: of the file.
        stop: ends waiting.
        shared: let others share the lock; else it is exclusive.

    Raises:
        StoppedError: `stop` is set.
        OSError: the file cannot be opened.
    """
    while (file := try_lock_file(path, shared=shared)) is None:
        if stop.wait(POLL):
            raise StoppedError(str(path))
    return file


def try_lock_file(path: Path, *, shared: bool = False) -> FileIO | None:
    """As `lock_file`, but None at once if another lock is in the way."""
    while True:
        with _opening:
            file = FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
            _open_files.add(file)
        if not try_lock(file, shared=shared):
            file.close()
            return None
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was removed meanwhile, and locks nothing any more


def try_lock(file: FileIO | int, *, shared: bool = False) -> bool:
    """Lock an open file, or turn its lock into the other kind, unless another one is in the way."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
