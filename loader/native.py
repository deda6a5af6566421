from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import simplejpeg
import torch

from cache.errors import CacheError
from cache.record import Fields
from loader.augment import Parameters, draw_parameters
from loader.batch import Batch, LoaderConfig
from loader.damage import RecordCheck, check_jpeg
from loader.kernels import copy_planes, copy_sample
from loader.order import BatchPlan
from loader.warp import warp_sample

if TYPE_CHECKING:
    from cache.reader import CacheReader

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]


class _Slot:
    """Reused buffers of one batch: pinned when it goes to a GPU."""

    def __init__(self, batch_size: int, side: int, *, pinned: bool) -> None:
        def buffer(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.uint8, pin_memory=pinned)

        image_NHWC = buffer(batch_size, side, side, 3)
        self.image = image_NHWC.permute(0, 3, 1, 2)
        self.person, self.ignore = buffer(batch_size, 1, side, side), buffer(batch_size, 1, side, side)
        self.rows = [
            Fields(image.reshape(-1), person.reshape(-1), ignore.reshape(-1))
            for image, person, ignore in zip(image_NHWC.numpy(), self.person.numpy(), self.ignore.numpy(), strict=True)
        ]
        self.copied: torch.cuda.Event | None = None  # recorded after the copy to the GPU that reads these buffers


class NativeSource:
    """Batches made by CPU threads in a ring of buffers: on any machine.

    The unit of work is a part of a batch, so that a batch is ready as soon as the threads together can make it.
    Kernels and decoding run without the interpreter lock.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader) -> None:
        self._config, self._reader, self._layout = config, reader, reader.layout
        self._records = RecordCheck(reader, config.on_bad_record)
        self._device = torch.device(config.device)
        on_gpu = self._device.type == "cuda"
        self._threads = config.threads or os.cpu_count() or 1
        # One batch is with the caller, the others are being made.
        self._ring = [_Slot(config.batch_size, self._layout.side, pinned=on_gpu) for _ in range(config.prefetch + 1)]
        self._stream = torch.cuda.Stream(self._device) if on_gpu else None  # type: ignore[no-untyped-call]
        self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="loader")
        self._stop = threading.Event()

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the planned batches. See `BatchSource`."""
        waiting = iter(plans)
        ahead = islice(waiting, len(self._ring) - 1)
        pending = [self._start(plan, self._ring[number]) for number, plan in enumerate(ahead)]
        number = len(pending)
        try:
            while pending:
                # The slot after the last pending one is the one that the caller has just given back by coming again.
                for following in islice(waiting, 1):
                    pending.append(self._start(following, self._ring[number % len(self._ring)]))
                    number += 1
                plan, slot, parts = pending[0]
                for part in parts:
                    part.result()
                del pending[0]
                yield self._hand_over(plan, slot)
        finally:
            self._stop.set()  # abandoned: let what is under way end, so that the ring is free
            for _, _, parts in pending:
                for part in parts:
                    part.cancel()
                    if not part.cancelled():
                        part.exception()
            self._stop.clear()

    def _start(self, plan: BatchPlan, slot: _Slot) -> tuple[BatchPlan, _Slot, list[Future[None]]]:
        """Hand the rows of a batch to the threads."""
        config = self._config
        parameters = None
        if not config.augment.identity:
            parameters = draw_parameters(config.augment, self._layout.side, config.seed, plan.epoch, plan.samples)
        if slot.copied is not None:
            slot.copied.synchronize()
        cuts = np.linspace(0, len(plan.samples), min(self._threads, len(plan.samples)) + 1).astype(int)
        parts = [
            self._pool.submit(self._fill, plan, slot, parameters, range(first, last)) for first, last in pairwise(cuts)
        ]
        return plan, slot, parts

    def _fill(self, plan: BatchPlan, slot: _Slot, parameters: Parameters | None, rows: range) -> None:
        """Make some rows of a batch. Runs in a thread."""
        for row in rows:
            if self._stop.is_set():
                return
            out = slot.rows[row]
            sample = int(plan.samples[row])
            if row < plan.valid and not self._records.is_bad(sample):
                try:
                    if parameters is None:
                        self._copy(sample, out)
                    else:
                        self._warp(sample, out, parameters.matrix[row], parameters.colour[row])
                    continue
                except (CacheError, ValueError) as error:
                    self._records.reject(sample, error)
            # It only fills up the batch, or its record is bad.
            out.image[:], out.person[:], out.ignore[:] = 0, 0, 1

    def _copy(self, sample: int, out: Fields) -> None:
        image, person, ignore = self._sound_fields(sample)
        if self._layout.codec == "raw":
            copy_sample(image.ctypes.data, person.ctypes.data, ignore.ctypes.data, *out)
        else:
            _decode(image, out.image, self._layout.side)
            copy_planes(person.ctypes.data, ignore.ctypes.data, out.person, out.ignore)

    def _warp(self, sample: int, out: Fields, matrix: F32, colour: F32) -> None:
        image, person, ignore = self._sound_fields(sample)
        if self._layout.codec == "jpeg":
            pixels = np.empty(self._layout.image_bytes, np.uint8)
            _decode(image, pixels, self._layout.side)
            image = pixels
        warp_sample(image.ctypes.data, person.ctypes.data, ignore.ctypes.data, self._layout.side, matrix, colour, *out)

    def _sound_fields(self, sample: int) -> Fields:
        fields = self._reader.fields(sample)
        self._records.check(sample)
        return fields

    def _hand_over(self, plan: BatchPlan, slot: _Slot) -> Batch:
        tensors = slot.image, slot.person, slot.ignore
        if self._stream is not None:
            compute = torch.cuda.current_stream(self._device)
            with torch.cuda.stream(self._stream):
                image, person, ignore = (tensor.to(self._device, non_blocking=True) for tensor in tensors)
                tensors = image, person, ignore
                slot.copied = self._stream.record_event()
            compute.wait_stream(self._stream)
            for tensor in tensors:
                tensor.record_stream(compute)  # the allocator must not reuse it before the network has read it
        skipped = self._records.skipped(plan)
        return Batch(*tensors, samples=plan.samples, valid=plan.valid, epoch=plan.epoch, skipped=skipped)

    def close(self) -> None:
        """Stop the threads. See `BatchSource`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._ring.clear()


def _decode(jpeg: U8, out: U8, side: int) -> None:
    """Decode a JPEG of `(side, side)` pixels straight into `out`, `(side*side*3,)`."""
    check_jpeg(jpeg, side)
    simplejpeg.decode_jpeg(jpeg, "RGB", buffer=out)
