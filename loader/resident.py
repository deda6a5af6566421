"""The resident backend: batches sampled from records that lie decoded in the memory of the device."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

from cache.arrays import I64, U8, Flags
from cache.machine import processors
from loader.augment import Parameters
from loader.batch import Batch, LoaderConfig
from loader.kernels import BLANK, copy_images, copy_packed_planes, copy_records
from loader.order import BatchPlan
from loader.prefetch import Buffers, PendingBatch, Spares, ThreadPool, draw, prefetch
from loader.records import IMAGE, RecordMap, make_batch
from loader.resident_store import (
    BLANK_ROW,
    Method,
    ResidentStore,
    TorchSampler,
    choose_method,
    count_resident,
    default_budget,
)
from loader.shard_prefetch import ShardPrefetch
from loader.warp import warp_records

if TYPE_CHECKING:
    from cache.reader import CacheReader


BLOCK = 16
"""Samples that a thread loads at a time."""


class RecordFiller:
    """Fills rows of a store with records. Threads may share it while no two of them work on the same sample or row.

    On a CPU records are decoded where they will stay. For a GPU each thread has a pinned buffer and waits for its own
    uploads, so that one thread decodes while another one's block crosses the bus. Methods raise `CacheCorruptError` for
    a bad record that may not be skipped.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, records: RecordMap, store: ResidentStore) -> None:
        self._config, self._reader, self._records, self._store = config, reader, records, store
        self._own = threading.local()
        on_gpu = store.device.type == "cuda"
        self._stream = torch.cuda.Stream(store.device) if on_gpu else None  # type: ignore[no-untyped-call]
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(store.device))  # the store's blank row is being written

    def fill_first(self, count: int, threads: int) -> I64:
        """Fill the rows after `BLANK_ROW` with the first samples of the split.

        For a GPU there are two threads at least: one waits for its upload while the other one decodes. Gives `(count,)`
        int64, the row of each: `BLANK_ROW` if its record is bad.
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

    def fill(self, samples: I64, first: int, after: torch.cuda.Event | None = None) -> Flags:
        """Load `(N,)` samples into rows from `first` on, when the last work on the GPU that reads these is done.

        Gives `(N,)`, whether each is sound; the rows of the others are blank.
        """
        count = len(samples)
        target = self._store.on_host(first, count) if self._stream is None else self._staging(count)
        image, person, ignore = target
        places = self._records.find(samples, count)
        if self._reader.layout.codec == "jpeg":
            self._records.decode(samples, places, image)
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


ABSENT = -1
"""Row of a sample that is not resident."""


class _Slot:
    """Rows of the store for the samples of one batch that are not resident; on a CPU also the buffers of the batch."""

    def __init__(self, first_row: int, buffers: Buffers | None) -> None:
        self.first_row, self.buffers = first_row, buffers
        self.read: torch.cuda.Event | None = None  # recorded after the last work on the GPU that reads these rows


class _PendingBatch(PendingBatch[_Slot]):
    """A batch, the `(N,)` rows of the store in which its records are, and the positions of those to be loaded."""

    def __init__(self, plan: BatchPlan, slot: _Slot, parameters: Parameters | None, rows: I64) -> None:
        super().__init__(plan, slot, parameters)
        self.rows = rows
        self.absent: I64 = np.flatnonzero(rows == ABSENT)
        rows[self.absent] = slot.first_row + np.arange(len(self.absent))


class ResidentSource:
    """Batches sampled from records that lie decoded in the memory of the device: read once, when the source is made.

    On a GPU a step is a gather, or with augmentation one compiled function, in the caller's stream, and only some
    numbers per sample cross the bus. If the budget, `LoaderConfig.resident_bytes`, is too small for all samples, the
    first ones are resident. Threads load the others of a batch into rows behind these, so that each batch is sampled
    from one store.

    On a CPU the store is sampled by the kernels of `native`, so batches are the same bit for bit; the torch functions
    take five to fifty times as long. Its advantage over `native` is that a JPEG is decoded once instead of in each
    epoch. A raw cache has none while the operating system keeps in memory what was read.

    `method` is for tests; by default it is that of `choose_method`. Raises `UserError` if not even one batch fits into
    the memory of the device.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, *, method: Method | None = None) -> None:
        self._config, self._reader, self._side = config, reader, reader.layout.side
        self._device = torch.device(config.device)
        method = method or choose_method(self._device)
        threads = config.threads or processors()
        batches = config.prefetch + 1  # one is with the caller, the others are being made
        budget = config.resident_bytes or default_budget(self._device, config.batch_size, self._side)
        self.resident = count_resident(
            len(reader), self._side, budget, batch_size=config.batch_size, batches=batches, device=config.device
        )
        rows, samples = 1 + self.resident, len(reader)
        if self.resident < samples:
            rows += config.batch_size * batches
        self._store = ResidentStore(rows, self._side, self._device)
        self._records = RecordMap(reader, config.on_bad_record)
        self._filler = RecordFiller(config, reader, self._records, self._store)
        self._rows = np.full(samples, ABSENT, np.int64)
        self._rows[: self.resident] = self._filler.fill_first(self.resident, threads)
        if self.resident == samples:
            reader.close()  # whatever becomes of the shards
        self._sample = None if method == "kernels" else TorchSampler(self._store, compiled=method == "compiled")
        if self._sample is not None and not config.augmentation.identity:
            self._sample.warm_up(config.batch_size)
        make = partial(Buffers, config.batch_size, self._side)
        self._spares = Spares(make)
        self._ring = [
            _Slot(1 + self.resident + number * config.batch_size, None if self._sample else make())
            for number in range(batches)
        ]
        self._parts = min(config.batch_size, -(-threads // config.prefetch))
        self._stop = reader.stop  # it ends the waiting for shards, too
        idle = self._sample is not None and self.resident == samples
        self._pool = ThreadPool(0 if idle else threads, "loader")

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the planned batches. See `BatchSource`."""
        with closing(prefetch(plans, self._ring, self._start, self._stop)) as ready:
            for pending in ready:
                yield self._hand_over(pending)

    def _start(self, plan: BatchPlan, slot: _Slot) -> _PendingBatch:
        """Find the rows of a batch, and hand what the CPU has to do for it to the threads."""
        rows = self._rows[plan.samples]
        rows[plan.valid :] = BLANK_ROW
        if slot.buffers:
            slot.buffers = self._spares.unless_held(slot.buffers)
        pending = _PendingBatch(plan, slot, draw(self._config, self._side, plan), rows)
        if self._sample is None or len(pending.absent):
            pending.start(self._pool, self._parts, partial(self._work, pending))
        return pending

    def _work(self, pending: _PendingBatch, first: int, last: int) -> None:
        """Load what is absent of a part of a batch, and on a CPU sample that part. Runs in a thread."""
        if self._stop.is_set():
            return
        slot, part = pending.slot, slice(first, last)
        begin, end = np.searchsorted(pending.absent, (first, last))
        if begin < end:
            absent = pending.absent[begin:end]
            sound = self._filler.fill(pending.plan.samples[absent], slot.first_row + int(begin), slot.read)
            pending.rows[absent[~sound]] = BLANK_ROW
        if slot.buffers is None:
            return
        places = self._store.places[pending.rows[part]]
        image, person, ignore = (buffer[part] for buffer in slot.buffers.rows)
        if pending.parameters is None:
            copy_records(places, image, person, ignore)
        else:
            matrix, colour = (values[part] for values in pending.parameters)
            warp_records(places, self._side, matrix, colour, image, person, ignore)

    def _hand_over(self, pending: _PendingBatch) -> Batch:
        slot = pending.slot
        if self._sample is None:
            assert slot.buffers is not None
            return make_batch(pending.plan, slot.buffers.lend(), self._records)
        image_NSS3, person_NSS, ignore_NSS = self._sample(pending.rows, pending.parameters)
        if self._device.type == "cuda" and len(pending.absent):
            slot.read = torch.cuda.current_stream(self._device).record_event()
        tensors = image_NSS3.permute(0, 3, 1, 2), person_NSS[:, None], ignore_NSS[:, None]
        return make_batch(pending.plan, tensors, self._records)

    def close(self) -> None:
        """Stop the threads and free the memory. See `BatchSource`."""
        self._pool.close()
        self._ring.clear()
        self._store.release()
