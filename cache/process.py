"""The end of processes: children that end with their parent, locks across a fork, and deferred interrupts."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType
from typing import TypeVar

Item = TypeVar("Item")


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


class LeftToParent(weakref.WeakSet[Item]):
    """Objects of this process that a forked child must not use: `leave` is called there for each that still exists."""

    def __init__(self, leave: Callable[[Item], object]) -> None:
        super().__init__()
        self._leave, self._watching = leave, False

    def add(self, item: Item) -> None:
        """Add an object; the first one has forks watched from then on."""
        if not self._watching:
            self._watching = True
            os.register_at_fork(after_in_child=self._leave_all)
        super().add(item)

    def _leave_all(self) -> None:
        for item in self:
            self._leave(item)


def fork_lock() -> AbstractContextManager[bool]:
    """A lock that a forked child never inherits held: a fork waits until it is free.

    For what takes a moment and must not be copied half done. Such a lock is a module's: it stays registered.
    """
    lock = threading.RLock()
    os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
    return lock


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Hold an interrupt back until the yielded function is called, which raises `KeyboardInterrupt` if there was one.

    Python raises it between any two instructions of the main thread, so that a file may just have been opened and not
    yet be known to the code that would remove it. A second interrupt is raised at once. In other threads than the main
    one, which are never interrupted, this does nothing.

    An interrupt is a signal that raises `KeyboardInterrupt`: Ctrl-C, and within the commands SIGTERM. A signal that is
    ignored, or that the program handles in its own way, is left alone.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    raising = signal.default_int_handler
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is raising]
    asked = False

    def restore() -> None:
        for number in numbers:
            signal.signal(number, raising)

    def remember(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        restore()

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, remember)
    try:
        yield check
        check()
    finally:
        restore()
