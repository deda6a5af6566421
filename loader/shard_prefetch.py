"""Shards in object storage are fetched before the batches that need them, and evicted after these."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np

from cache.arrays import I64
from cache.errors import CacheError
from cache.messages import message
from loader.batch import LoaderConfig
from loader.order import resolve_order
from loader.prefetch import ThreadPool

if TYPE_CHECKING:
    from cache.reader import CacheReader


FETCHERS = 4
"""Shards that a process fetches at a time: one connection rarely fills the network."""

END_SECONDS = 5.0
"""How long to wait for a request that does not end though it should; the thread ends with the process."""


class ShardPrefetch:
    """Fetches shards of a split in object storage before they are needed, and evicts them afterwards.

    `early` is the number of batches under way beside the one that the caller has.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, *, early: int) -> None:
        self._config, self._reader, self._early = config, reader, early
        self._pool = ThreadPool(FETCHERS, "loader-fetch")

    @contextmanager
    def follow(self, needs: Sequence[I64]) -> Iterator[Callable[[int], None]]:
        """Within the block, keep the shards of the coming batches open: `needs` are those that each is read from.

        Yields a function to be called with the number of a batch when that and all before it are made. Raises
        `CacheError` if the folder is too small.
        """
        first: dict[int, int] = {}
        last: dict[int, int] = {}
        for step, shards in enumerate(needs):
            for shard in shards.tolist():
                first.setdefault(shard, step)
                last[shard] = step
        self._check_size(first, last)
        starts = sorted(first.values())
        coming = deque(first)  # in the order of their first use
        ends = deque(sorted(last, key=last.__getitem__))
        evicted: set[int] = set()

        def fetch_until(step: int) -> None:
            wanted = int(np.searchsorted(starts, step, "right")) + self._config.ahead
            while coming and len(first) - len(coming) < wanted:
                # An error stays in the thread: whoever needs the shard tries again.
                self._pool.submit(partial(self._reader.open_shard, coming.popleft(), evicted), SimpleQueue())

        def evict(shard: int) -> None:
            evicted.add(shard)
            self._reader.evict(shard)

        def done(step: int) -> None:
            while ends and last[ends[0]] <= step:
                evict(ends.popleft())
            fetch_until(step + self._early + 1)

        fetch_until(self._early)
        try:
            yield done
        finally:
            for shard in ends:
                evict(shard)

    def _check_size(self, first: dict[int, int], last: dict[int, int]) -> None:
        """Refuse an order for which the folder is too small, before anything is fetched."""
        if not first:
            return
        config, size = self._config, [info.bytes for info in self._reader.info.shards]
        steps = np.arange(max(last.values()) + 1)
        fetched = np.searchsorted(sorted(first.values()), steps + self._early + 1, "right") + config.ahead
        evicted = np.searchsorted(sorted(last.values()), steps, "left")
        fetched_bytes = np.cumsum([0, *(size[shard] for shard in first)])
        evicted_bytes = np.cumsum([0, *(size[shard] for shard in sorted(last, key=last.__getitem__))])
        needed = int((fetched_bytes[np.minimum(fetched, len(first))] - evicted_bytes[evicted]).max())
        assert self._reader.store is not None
        folder = self._reader.store.folder
        if needed > folder.limit:
            remedy = message("--order windowed")
            if resolve_order(config.order, config.cache) == "windowed":
                remedy = message("a --window below {window}", window=config.window)
            raise CacheError(
                "{path} may hold {limit:,} bytes, and this order needs {needed:,} at a time, those of {ahead} "
                "shards ahead included; use a --cache-size of {needed:,} or more, or {remedy}",
                path=folder.path,
                limit=folder.limit,
                needed=needed,
                ahead=config.ahead,
                remedy=remedy,
            )

    def close(self) -> None:
        """End the threads."""
        self._pool.close(END_SECONDS)
