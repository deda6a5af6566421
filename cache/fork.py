from __future__ import annotations

import os
import threading
from contextlib import AbstractContextManager


def fork_lock() -> AbstractContextManager[bool]:
    """A lock that a forked child never inherits held: a fork waits until it is free.

    For what takes a moment and must not be copied half done. Such a lock is a module's: it stays registered.
    """
    lock = threading.RLock()
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock
