"""How a contestant is pulled: batch after batch, epoch after epoch, the clock on only while batches flow.

Runs in any environment: standard library only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from time import perf_counter
from typing import Any

from bench.peers.usage import Usage, descendants

LEAD_BATCHES = 8
"""Taken before the clock starts: more than any contestant makes ahead, so that none begins with batches for free."""

Batch = tuple[Any, Any, Any]
"""Image, person, ignore: arrays or tensors of uint8, samples first."""


@dataclasses.dataclass(frozen=True)
class Feed:
    """A loader, opened.

    Attributes:
        epoch: begins an epoch of batches, or of numbers of samples where there is nothing to be shown.
        library: name and version.
        lead: batches before the clock starts.
    """

    epoch: Callable[[], Iterable[Batch | int]]
    library: str
    lead: int = LEAD_BATCHES


@dataclasses.dataclass(frozen=True)
class Window:
    """What came while the clock ran, and what all processes of the contestant used for it.

    Attributes:
        samples: how many.
        seconds: of the clock.
        cpu: seconds, user and system.
        disk: bytes that were not in the page cache.
    """

    samples: int
    seconds: float
    cpu: float
    disk: int


def size_of(batch: Batch | int) -> int:
    """Samples in a batch."""
    return batch if isinstance(batch, int) else len(batch[0])


class Pump:
    """Pulls a feed in windows; between them it rests in the middle of an epoch, with what it made ahead.

    Where an epoch ends, the clock stops until the next one flows: epochs are short here, and what their ends cost would
    weigh sixteen times as much as with all of COCO.
    """

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._batches: Iterator[Batch | int] = iter(())

    def window(self, seconds: float) -> Window:
        """Take whole batches for at least so long.

        Raises:
            ValueError: an epoch has no batches beyond those before the clock starts.
        """
        samples, spent, used = 0, 0.0, Usage()
        while spent < seconds:
            fresh, before = self._lead(), samples
            workers = descendants()
            begun, start = Usage.now(workers), perf_counter()
            last = start
            for batch in self._batches:
                samples += size_of(batch)
                last = perf_counter()
                if spent + last - start >= seconds:
                    break
            used = used + (Usage.now(workers) - begun)
            spent += last - start
            if fresh and samples == before:
                raise ValueError(f"an epoch has no more than {self._feed.lead} batches; use more samples")
        return Window(samples, spent, used.cpu, used.disk)

    def _lead(self) -> bool:
        """Go on, or begin an epoch, until batches flow; whether one was begun."""
        if self._take(self._feed.lead):
            return False
        # Through a generator, which may be asked again when it has ended: FFCV's iterator then waits for ever.
        self._batches = (batch for batch in self._feed.epoch())
        self._take(self._feed.lead)
        return True

    def _take(self, batches: int) -> bool:
        """Take so many batches; whether there were as many."""
        return sum(1 for _ in islice(self._batches, batches)) == batches
