"""Being asked to stop, without being torn out of an update of the weights."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from train.ranks import ALONE, Ranks

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)

LAUNCHER_VARIABLE = "TORCHELASTIC_RUN_ID"
"""Set in the processes that `torchrun` has started."""


class StopRequest:
    """Whether to stop, the same on all ranks.

    A rank is asked to by a signal, or by the end of the `torchrun` that started it: were that killed, ranks would go on
    with nobody to stop them.

    Args:
        asked: is set when this process is asked to.
        ranks: of the run.
        device: on which they speak to each other.
    """

    def __init__(self, asked: threading.Event, ranks: Ranks = ALONE, device: str = "cpu") -> None:
        self._asked, self._ranks, self._device = asked, ranks, device
        self._agreed = False
        self._launcher = os.getppid() if LAUNCHER_VARIABLE in os.environ else None

    @property
    def agreed(self) -> bool:
        """What was agreed on last. One process alone always agrees with itself."""
        return self._asked_here() if self._ranks.world == 1 else self._agreed

    def agree(self) -> bool:
        """Stop all ranks if one is asked to. All must call it, at the same place."""
        self._agreed = self._ranks.any(self._asked_here(), self._device)
        return self._agreed

    def _asked_here(self) -> bool:
        return self._asked.is_set() or self._launcher not in (None, os.getppid())


@contextmanager
def stop_requests() -> Iterator[threading.Event]:
    """Give an event that the first Ctrl-C or SIGTERM sets instead of ending the program at once.

    A second one acts as usual. One that is ignored, as Ctrl-C is in a program that a script started in the background,
    stays so. Outside the main thread, where Python takes no signals, the event just stays unset.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    # None stands for a handler that was not set from Python: it could not be put back.
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def ask(number: int, _frame: FrameType | None) -> None:
        asked.set()
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
