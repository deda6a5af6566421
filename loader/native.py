"""The native backend: batches made by CPU threads, on any machine."""

from __future__ import annotations

import gc
import threading
from collections.abc import Generator, Iterable
from contextlib import closing
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING

import numpy as np
import torch

from cache.arrays import U8
from cache.machine import processors
from cache.process import fork_lock
from loader.batch import Batch, LoaderConfig
from loader.kernels import BLANK, copy_records, unpack_planes
from loader.order import BatchPlan
from loader.prefetch import OFF_LINE, Buffers, PendingBatch, Spares, ThreadPool, draw, host_buffer, prefetch
from loader.records import IMAGE, RecordMap, make_batch
from loader.warp import warp_records

if TYPE_CHECKING:
    from cache.reader import CacheReader


class _Slot:
    """Reused buffers of one batch: pinned when it goes to a GPU."""

    def __init__(self, buffers: Buffers) -> None:
        self.buffers = buffers
        self.copied: torch.cuda.Event | None = None  # recorded after the copy to the GPU that reads these buffers


class NativeSource:
    """Batches made by CPU threads in a ring of buffers: on any machine.

    A job is a batch, or a part of one where there are more threads than batches under way. One call of a kernel does
    it, from the memory maps to the buffers; kernels and decoding run without the interpreter lock.
    """

    resident = 0

    def __init__(self, config: LoaderConfig, reader: CacheReader) -> None:
        self._config, self._reader, self._layout = config, reader, reader.layout
        self._records = RecordMap(reader, config.on_bad_record)
        self._device = torch.device(config.device)
        on_gpu = self._device.type == "cuda"
        threads = config.threads or processors()
        self._parts = min(config.batch_size, -(-threads // config.prefetch))
        jpeg = self._layout.codec == "jpeg"
        make = partial(
            Buffers,
            config.batch_size,
            self._layout.side,
            pinned=on_gpu and config.pin_memory,
            off=OFF_LINE if jpeg else 0,
        )
        # One batch is with the caller, the others are being made.
        self._ring = [_Slot(make()) for _ in range(config.prefetch + 1)]
        self._spares = Spares(make)
        self._stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._scratch = threading.local()
        self._stop = reader.stop  # it ends the waiting for shards, too
        self._pool = ThreadPool(threads, "loader")
        self._pool.submit(self._load_kernels, SimpleQueue())  # what it raises, the first batch raises, too

    def _load_kernels(self) -> None:
        """Make a batch of no samples: Numba starts and reads the machine code while the caller does something else.

        Numba makes so many objects then that Python's garbage collector, which goes through all that was ever
        imported, would take a third of the time to a first batch. So it is paused.
        """
        plan = BatchPlan(epoch=0, samples=np.empty(0, np.int64), valid=0)
        empty = PendingBatch(plan, self._ring[0], draw(self._config, self._layout.side, plan))
        with _loading_kernels:
            collects = gc.isenabled()
            gc.disable()
            try:
                self._fill(empty, 0, 0)
            finally:
                if collects:
                    gc.enable()

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the planned batches. See `BatchSource`."""
        with closing(prefetch(plans, self._ring, self._start, self._stop)) as ready:
            for pending in ready:
                yield self._hand_over(pending.plan, pending.slot)

    def _start(self, plan: BatchPlan, slot: _Slot) -> PendingBatch[_Slot]:
        """Hand a batch to the threads."""
        if slot.copied is not None:
            slot.copied.synchronize()
        slot.buffers = self._spares.unless_held(slot.buffers)
        pending = PendingBatch(plan, slot, draw(self._config, self._layout.side, plan))
        pending.start(self._pool, self._parts, partial(self._fill, pending))
        return pending

    def _fill(self, pending: PendingBatch[_Slot], first: int, last: int) -> None:
        """Make some rows of a batch. Runs in a thread."""
        if self._stop.is_set():
            return
        plan, rows = pending.plan, slice(first, last)
        samples = plan.samples[rows]
        places = self._records.find(samples, max(0, plan.valid - first))
        image, person, ignore = (buffer[rows] for buffer in pending.slot.buffers.rows)
        if pending.parameters is None:
            if self._layout.codec == "jpeg":
                self._records.decode(samples, places, image)
                unpack_planes(places, person, ignore)
            else:
                copy_records(places, image, person, ignore)
            return
        matrix, colour = (values[rows] for values in pending.parameters)
        if self._layout.codec == "jpeg":
            pixels = self._pixels(last - first)
            self._records.decode(samples, places, pixels)
            sound = places[:, IMAGE] != BLANK
            places[sound, IMAGE] = (pixels.ctypes.data + pixels.strides[0] * np.arange(len(pixels)))[sound]
        warp_records(places, self._layout.side, matrix, colour, image, person, ignore)

    def _pixels(self, rows: int) -> U8:
        """This thread's own buffer for `(N, S*S*3)` decoded pixels."""
        pixels: U8 | None = getattr(self._scratch, "pixels", None)
        if pixels is None or len(pixels) < rows:
            pixels = self._scratch.pixels = host_buffer(rows, self._layout.image_bytes, off=OFF_LINE).numpy()
        return pixels[:rows]

    def _hand_over(self, plan: BatchPlan, slot: _Slot) -> Batch:
        if self._stream is None:
            return make_batch(plan, slot.buffers.lend(), self._records)
        compute = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            image, person, ignore = (tensor.to(self._device, non_blocking=True) for tensor in slot.buffers.tensors)
            slot.copied = self._stream.record_event()
        compute.wait_stream(self._stream)
        for tensor in (image, person, ignore):
            tensor.record_stream(compute)  # the allocator must not reuse it before the network has read it
        return make_batch(plan, (image, person, ignore), self._records)

    def close(self) -> None:
        """Stop the threads. See `BatchSource`."""
        self._pool.close()
        self._ring.clear()


_loading_kernels = fork_lock()
"""Held while kernels are loaded: a child forked meanwhile would keep Numba's locks, and Python's collector paused."""
