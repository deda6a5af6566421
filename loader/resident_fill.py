"""Loads records of the cache into rows of a store: checks, decodes and uploads them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from loader.batch import LoaderConfig
from loader.damage import RecordCheck
from loader.kernels import BLANK, copy_images, copy_packed_planes
from loader.record_map import IMAGE, RecordMap
from loader.resident_store import BLANK_ROW, ResidentStore
from loader.shard_flow import ShardPrefetch

if TYPE_CHECKING:
    from cache.reader import CacheReader

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

BLOCK = 16
"""Samples that a thread loads at a time."""


class RecordFiller:
    """Fills rows of a store. Threads may share it as long as no two of them work on the same sample or row.

    On a CPU records are decoded where they will stay. For a GPU each thread has a pinned buffer and waits for its own
    uploads, so that one thread decodes while another one's block crosses the bus.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, records: RecordCheck, store: ResidentStore) -> None:
        self._config, self._reader, self._store = config, reader, store
        self._map = RecordMap(reader, records)
        self._own = threading.local()
        on_gpu = store.device.type == "cuda"
        self._stream = torch.cuda.Stream(store.device) if on_gpu else None  # type: ignore[no-untyped-call]
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(store.device))  # the store's blank row is being written

    def fill_first(self, count: int, threads: int) -> I64:
        """Fill the rows after `BLANK_ROW` with the first samples of the split.

        For a GPU there are two threads at least: one waits for its upload while the other one decodes.

        Returns:
            `(count,)` int64, the row of each: `BLANK_ROW` if its record is bad.

        Raises:
            CacheCorruptError: a record is bad and not to be skipped.
        """
        rows = np.arange(1, count + 1)
        threads = threads if self._stream is None else max(2, threads)

        def load(block: range) -> None:
            samples = np.array(block)
            sound = self.fill(samples, block.start + 1)
            rows[samples[~sound]] = BLANK_ROW

        with ThreadPoolExecutor(threads, thread_name_prefix="loader-fill") as pool:
            for group in self._groups(count):
                blocks = [group[first : first + BLOCK] for first in range(0, len(group), BLOCK)]
                for _ in pool.map(load, blocks):  # cancels what is left if one fails
                    pass
        return rows

    def _groups(self, count: int) -> Iterator[range]:
        """The first samples; where shards are fetched, those of one shard at a time while the next ones come."""
        if not self._reader.fetches:
            yield range(count)
            return
        shard_of = self._reader.samples["shard"][:count]
        edges = [0, *(np.flatnonzero(np.diff(shard_of)) + 1).tolist(), count]
        with (
            closing(ShardPrefetch(self._config, self._reader, early=0)) as shards,
            shards.follow([shard_of[first : first + 1] for first in edges[:-1]]) as done,
        ):
            for step, (first, end) in enumerate(pairwise(edges)):
                yield range(first, end)
                done(step)

    def fill(self, samples: I64, first: int, after: torch.cuda.Event | None = None) -> Bools:
        """Load `(N,)` samples into rows from `first` on.

        Args:
            samples: their numbers.
            first: the first row.
            after: recorded after the last work on the GPU that reads these rows.

        Returns:
            `(N,)` whether each is sound; the rows of the others are blank.

        Raises:
            CacheCorruptError: a record is bad and not to be skipped.
        """
        count = len(samples)
        target = self._store.on_host(first, count) if self._stream is None else self._staging(count)
        image, person, ignore = target
        places = self._map.find(samples, count)
        if self._reader.layout.codec == "jpeg":
            self._map.decode(samples, places, image)
        else:
            copy_images(places, image)
        copy_packed_planes(places, person, ignore)
        if self._stream is not None:
            with torch.cuda.stream(self._stream):
                if after is not None:
                    self._stream.wait_event(after)
                for tensor, values in zip(self._store.records, target, strict=True):
                    tensor[first : first + count].view(count, -1).copy_(torch.from_numpy(values), non_blocking=True)
                uploaded = self._stream.record_event()
            uploaded.synchronize()
        return np.asarray(places[:, IMAGE] != BLANK)

    def _staging(self, count: int) -> tuple[U8, U8, U8]:
        """Pinned rows of this thread's own."""
        staging: list[U8] | None = getattr(self._own, "staging", None)
        if staging is None or len(staging[0]) < count:
            staging = self._own.staging = [
                torch.empty((count, tensor[0].numel()), dtype=torch.uint8, pin_memory=True).numpy()
                for tensor in self._store.records
            ]
        image, person, ignore = (buffer[:count] for buffer in staging)
        return image, person, ignore
