"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import multiprocessing
import os
import threading
from contextlib import AbstractContextManager


def end_with_parent() -> None:
    """End this process, which `multiprocessing` has started, as soon as its parent has ended, even if that was killed.

    A parent that ends in an orderly way sees to this itself.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, name="end-with-parent", daemon=True).start()


def fork_lock() -> AbstractContextManager[bool]:
    """A lock that a forked child never inherits held: a fork waits until it is free.

    For what takes a moment and must not be copied half done. Such a lock is a module's: it stays registered.
    """
    lock = threading.RLock()
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
