"""Ctrl-C and SIGTERM at a moment that suits: between two steps, never in the middle of one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], None]]:
    """Keep an interrupt until the function that is given is called, which raises `KeyboardInterrupt` if there was one.

    Python raises it between any two instructions of the main thread, so that a file may be open and nobody know of it
    yet. Where the wait for a good moment is too long, a second one comes through at once. Other threads than the main
    one are never interrupted; there this does nothing.

    An interrupt is a signal that raises `KeyboardInterrupt`: Ctrl-C, and within our commands SIGTERM. One that is
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
