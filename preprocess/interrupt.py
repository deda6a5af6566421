"""Ctrl-C at a moment that suits: between two steps, never in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Keep a Ctrl-C until the function that is given is called: it then raises `KeyboardInterrupt`, or does nothing.

    Python raises it between any two instructions of the main thread, so that a file may be open and nobody know of it
    yet. Where the wait for a good moment is too long, a second Ctrl-C comes through at once. Other threads than the
    main one are never interrupted; there this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = signal.getsignal(signal.SIGINT)
    asked = False

    def remember(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(signal.SIGINT, before)

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    if before is not signal.default_int_handler:  # somebody else's affair, or ignored
        yield check
        return
    signal.signal(signal.SIGINT, remember)
    try:
        yield check
        check()
    finally:
        signal.signal(signal.SIGINT, before)
