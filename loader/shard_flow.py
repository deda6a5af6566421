"""Shards in object storage come before the batches that need them, and go after these."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cache.errors import CacheError
from loader.ahead import ThreadPool
from loader.batch import LoaderConfig
from loader.order import resolve_order

if TYPE_CHECKING:
    from cache.reader import CacheReader

I64 = npt.NDArray[np.int64]

FETCHERS = 4
"""Shards that a process fetches at a time: one connection rarely fills the network."""

END_SECONDS = 5.0
"""How long to wait for a request that does not end though it should; the thread ends with the process."""


def open_flow(config: LoaderConfig, reader: CacheReader, *, early: int) -> ShardFlow | None:
    """The flow of a loader's shards; None if they do not come and go.

    Args:
        config: of the loader.
        reader: of its split.
        early: see `ShardFlow`.
    """
    if not reader.fetches:
        return None
    windowed = resolve_order(config.order, config.cache) == "windowed"
    remedy = f"a --window below {config.window}" if windowed else "--order windowed"
    return ShardFlow(reader, ahead=config.ahead, early=early, remedy=remedy)


class ShardFlow:
    """Fetches shards ahead of their use, and lets them go after it.

    Args:
        reader: of a cache in object storage.
        ahead: shards that are fetched before a batch under way needs them.
        early: batches under way beside the one that the caller has.
        remedy: what to do if the folder is too small for the order, beside giving it more.
    """

    def __init__(self, reader: CacheReader, *, ahead: int, early: int, remedy: str) -> None:
        self._reader, self._ahead, self._early, self._remedy = reader, ahead, early, remedy
        self._pool = ThreadPool(FETCHERS, "loader-fetch")

    @contextmanager
    def follow(self, needs: Sequence[I64]) -> Iterator[Callable[[int], None]]:
        """Within the block, have the shards of the coming batches at hand.

        Args:
            needs: the shards that each batch is read from.

        Yields:
            To be called with the number of a batch when it, and all before it, are made.

        Raises:
            CacheError: the folder is too small.
        """
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for step, shards in enumerate(needs):
            for shard in shards.tolist():
                first.setdefault(shard, step)
                last[shard] = step
        self._check_room(first, last)
        starts = sorted(first.values())
        coming = deque(first)  # in the order of their first use
        ends = deque(sorted(last, key=last.__getitem__))
        gone: set[int] = set()

        def bring_until(step: int) -> None:
            wanted = int(np.searchsorted(starts, step, "right")) + self._ahead
            while coming and len(first) - len(coming) < wanted:
                self._pool.submit(partial(self._fetch, coming.popleft(), gone), SimpleQueue())

        def evict(shard: int) -> None:
            gone.add(shard)
            self._reader.evict(shard)

        def done(step: int) -> None:
            while ends and last[ends[0]] <= step:
                evict(ends.popleft())
            bring_until(step + self._early + 1)

        bring_until(self._early)
        try:
            yield done
        finally:
            for shard in ends:
                evict(shard)

    def _fetch(self, shard: int, gone: Container[int]) -> None:
        """Fetch a shard, unless its batches were faster and are made.

        Runs in a thread, which keeps its errors to itself: whoever needs the shard tries again.
        """
        self._reader.open_shard(shard, gone)

    def _check_room(self, first: dict[int, int], last: dict[int, int]) -> None:
        """Refuse an order for which the folder is too small, before anything is fetched."""
        if not first:
            return
        size = [self._reader.info.shards[shard].bytes for shard in range(len(self._reader.info.shards))]
        steps = np.arange(max(last.values()) + 1)
        come = np.searchsorted(sorted(first.values()), steps + self._early + 1, "right") + self._ahead
        gone = np.searchsorted(sorted(last.values()), steps, "left")
        came = np.cumsum([0, *(size[shard] for shard in first)])
        went = np.cumsum([0, *(size[shard] for shard in sorted(last, key=last.__getitem__))])
        needed = int((came[np.minimum(come, len(first))] - went[gone]).max())
        assert self._reader.store is not None
        folder = self._reader.store.folder
        if needed > folder.limit:
            raise CacheError(
                f"{folder.path} may hold {folder.limit:,} bytes, and this order needs {needed:,} at a time, those of "
                f"{self._ahead} shards ahead included; use a --cache-size of {needed:,} or more, or {self._remedy}"
            )

    def close(self) -> None:
        """End the threads."""
        self._pool.close(END_SECONDS)
