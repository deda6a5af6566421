"""Being asked to stop, without being torn out of an update of the weights."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from train.ranks import ALONE, Ranks

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether to stop, the same on all ranks.

    Args:
        asked: is set when this process is asked to.
        ranks: of the run.
        device: on which they speak to each other.
    """

    def __init__(self, asked: threading.Event, ranks: Ranks = ALONE, device: str = "cpu") -> None:
        self._asked, self._ranks, self._device = asked, ranks, device
        self._agreed = False

    @property
    def agreed(self) -> bool:
        """What was agreed on last. One process alone always agrees with itself."""
        return self._asked.is_set() if self._ranks.world == 1 else self._agreed

    def agree(self) -> bool:
        """Stop all ranks if one is asked to. All must call it, at the same place."""
        self._agreed = self._ranks.any(self._asked.is_set(), self._device)
        return self._agreed


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or SIGTERM sets instead of ending the program at once.

    A second one acts as usual. Outside the main thread, where Python takes no signals, the event just stays unset.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    # None stands for a handler that was not set from Python and cannot be put back.
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in STOP_SIGNALS}

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in STOP_SIGNALS:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
