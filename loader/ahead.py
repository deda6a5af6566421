"""Batches made ahead of the one that is asked for, in a ring of buffers; the same for every backend with threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from itertools import islice, pairwise
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from loader.augment import Parameters
from loader.crew import Crew, Done
from loader.order import BatchPlan

Slot = TypeVar("Slot")


class Making(Generic[Slot]):
    """A batch on its way.

    Attributes:
        plan: what it is of.
        slot: where it goes to.
        parameters: of its augmentation, if there is any.
    """

    def __init__(self, plan: BatchPlan, slot: Slot, parameters: Parameters | None) -> None:
        self.plan, self.slot, self.parameters = plan, slot, parameters
        self._waiting = 0
        self._done: Done = SimpleQueue()

    def share_out(self, crew: Crew, parts: int, work: Callable[[int, int], None]) -> None:
        """Have `work(first row, row after the last)` done by threads, for each of so many parts of the batch."""
        rows = len(self.plan.samples)
        for first, last in pairwise(rows * part // parts for part in range(parts + 1)):
            crew.do(partial(work, first, last), self._done)
        self._waiting += parts

    def wait(self) -> None:
        """Until it is ready. Raises what a thread has raised, though others may still be at work."""
        while self._waiting:
            self._waiting -= 1
            if (error := self._done.get()) is not None:
                raise error

    def abandon(self) -> None:
        """Wait until no thread is at work on it."""
        while self._waiting:
            self._waiting -= 1
            self._done.get()


OneMaking = TypeVar("OneMaking", bound=Making[Any])


def make_ahead(
    plans: Iterable[BatchPlan],
    slots: Sequence[Slot],
    start: Callable[[BatchPlan, Slot], OneMaking],
    stop: threading.Event,
) -> Generator[OneMaking]:
    """Start the planned batches as far ahead as there are slots; give each when it is ready, in order.

    One slot is with the caller, until it asks for the next batch.

    Args:
        plans: of the batches.
        slots: two or more.
        start: hands a batch to threads.
        stop: set while these are to do no more work, because the caller has had enough.
    """
    waiting, free = iter(plans), deque(slots)
    under_way: deque[OneMaking] = deque()
    try:
        under_way.extend(start(plan, free.popleft()) for plan in islice(waiting, len(slots) - 1))
        while under_way:
            # The last free slot is the one that the caller has just given back by coming again.
            under_way.extend(start(plan, free.popleft()) for plan in islice(waiting, 1))
            under_way[0].wait()
            making = under_way.popleft()
            yield making
            free.append(making.slot)
    finally:
        stop.set()
        for making in under_way:
            making.abandon()
        stop.clear()
