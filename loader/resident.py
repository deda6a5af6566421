from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from loader.ahead import Making, make_ahead
from loader.augment import Parameters, draw_parameters
from loader.batch import Batch, LoaderConfig
from loader.buffers import host_buffer
from loader.crew import Crew
from loader.damage import RecordCheck
from loader.kernels import copy_records
from loader.order import BatchPlan
from loader.resident_fill import RecordFiller
from loader.resident_sampler import Method, TorchSampler, choose_method
from loader.resident_store import BLANK_ROW, Residency, ResidentStore, default_budget, plan_residency
from loader.sampling import Pixels
from loader.warp import warp_records

if TYPE_CHECKING:
    from cache.reader import CacheReader

I64 = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ELSEWHERE = -1
"""Row of a sample that is not resident."""


class _Slot:
    """What a batch on its way may fill: rows of the store with samples that are not resident, and buffers on a CPU."""

    def __init__(self, first_row: int, pixels: Pixels | None) -> None:
        self.first_row, self.pixels = first_row, pixels
        self.buffers = [tensor.numpy().reshape(len(tensor), -1) for tensor in pixels or ()]  # the same, flat
        self.read: torch.cuda.Event | None = None  # behind the last work on the GPU that reads these rows


class _Making(Making[_Slot]):
    """A batch on its way, and `(N,)` rows of the store in which its records are; `absent` are those to be loaded."""

    def __init__(self, plan: BatchPlan, slot: _Slot, rows: I64, parameters: Parameters | None) -> None:
        super().__init__(plan, slot, parameters)
        self.rows = rows
        self.absent: I64 = np.flatnonzero(rows == ELSEWHERE)
        if len(self.absent):
            rows[self.absent] = slot.first_row + np.arange(len(self.absent))


class ResidentSource:
    """Batches sampled from records that lie decoded in the memory of the device: read once, when the source is made.

    On a GPU a step is a gather, or with augmentation one compiled function, in the caller's stream, and nothing but
    some numbers a sample crosses the bus. If the budget, `LoaderConfig.resident_bytes`, is too small for all samples,
    the first ones are resident. The others of a batch are loaded by threads into rows behind these, so that it is
    sampled from one store all the same. `notes` then says so.

    On a CPU the store is sampled by the kernels of `native`, so batches are the same bit for bit; the torch functions
    take five to fifty times as long. What it brings over `native` is that a JPEG is decoded once instead of in each
    epoch. With a raw cache it brings nothing while the operating system keeps what was read: records are as near then.

    Args:
        config: see `LoaderConfig`.
        reader: of its split.
        method: for tests; by default see `choose_method`.

    Attributes:
        residency: what is resident.
        load_seconds: how long it took to load that, and to compile.

    Raises:
        CacheCorruptError: a resident record is bad, and not to be skipped.
        ValueError: the device is not there, or not even one batch fits into its memory.
    """

    def __init__(self, config: LoaderConfig, reader: CacheReader, *, method: Method | None = None) -> None:
        start = perf_counter()
        self._config, self._reader, self._side = config, reader, reader.layout.side
        self._device = _check_device(config.device)
        method = method or choose_method(self._device)
        batches = config.prefetch + 1  # one is with the caller, the others are being made
        self.residency: Residency = plan_residency(
            len(reader),
            self._side,
            config.resident_bytes or default_budget(self._device, config.batch_size, self._side),
            batch_size=config.batch_size,
            batches=batches,
            device=config.device,
        )
        threads, resident = config.threads or os.cpu_count() or 1, self.residency.resident
        self._store = ResidentStore(self.residency.rows, self._side, self._device)
        self._records = RecordCheck(reader, config.on_bad_record)
        self._filler = RecordFiller(config, reader, self._records, self._store)
        self._rows = np.full(len(reader), ELSEWHERE, np.int64)
        self._rows[:resident] = self._filler.fill_first(resident, threads)
        self._sample = None if method == "kernels" else TorchSampler(self._store, compiled=method == "compiled")
        if self._sample is not None and not config.augmentation.identity:
            self._sample.warm_up(config.batch_size)
        self._ring = [
            _Slot(1 + resident + number * config.batch_size, None if self._sample else self._buffers())
            for number in range(batches)
        ]
        self._parts = min(config.batch_size, -(-threads // config.prefetch))
        self._stop = reader.stop  # it ends the waiting for shards, too
        idle = self._sample is not None and resident == len(reader)
        self._crew = Crew(0 if idle else threads, "loader")
        self.load_seconds = perf_counter() - start

    @property
    def notes(self) -> tuple[str, ...]:
        """What is worth knowing of how it runs."""
        return self.residency.notes

    def reads(self, samples: I64) -> Bools:
        """Those that are not resident. See `BatchSource`."""
        return np.asarray(self._rows[samples] == ELSEWHERE)

    def run(self, plans: Iterable[BatchPlan]) -> Generator[Batch]:
        """Make the planned batches. See `BatchSource`."""
        with closing(make_ahead(plans, self._ring, self._start, self._stop)) as ready:
            for making in ready:
                yield self._hand_over(making)

    def _start(self, plan: BatchPlan, slot: _Slot) -> _Making:
        """Find the rows of a batch, and hand what the CPU has to do for it to the threads."""
        config = self._config
        parameters = None
        if not config.augmentation.identity:
            parameters = draw_parameters(config.augmentation, self._side, config.seed, plan.epoch, plan.samples)
        rows = self._rows[plan.samples]
        rows[plan.valid :] = BLANK_ROW
        making = _Making(plan, slot, rows, parameters)
        if self._sample is None or len(making.absent):
            making.share_out(self._crew, self._parts, partial(self._work, making))
        return making

    def _work(self, making: _Making, first: int, last: int) -> None:
        """Load what is absent of a part of a batch, and on a CPU sample that part. Runs in a thread."""
        if self._stop.is_set():
            return
        if len(making.absent):
            self._load(making, first, last)
        if self._sample is not None:
            return
        part = slice(first, last)
        places = self._store.places(making.rows[part])
        image, person, ignore = (buffer[part] for buffer in making.slot.buffers)
        if making.parameters is None:
            copy_records(places, image, person, ignore)
        else:
            matrix, colour = (values[part] for values in making.parameters)
            warp_records(places, self._side, matrix, colour, image, person, ignore)

    def _load(self, making: _Making, first: int, last: int) -> None:
        """Load what is absent of a part of a batch."""
        begin, end = np.searchsorted(making.absent, (first, last))
        if begin < end:
            absent = making.absent[begin:end]
            sound = self._filler.fill(making.plan.samples[absent], making.slot.first_row + int(begin), making.slot.read)
            making.rows[absent[~sound]] = BLANK_ROW

    def _hand_over(self, making: _Making) -> Batch:
        plan, slot = making.plan, making.slot
        pixels = slot.pixels if self._sample is None else self._sample(making.rows, making.parameters)
        assert pixels is not None
        if self._device.type == "cuda" and len(making.absent):
            slot.read = torch.cuda.current_stream(self._device).record_event()
        image_NSS3, person_NSS, ignore_NSS = pixels
        return Batch(
            image=image_NSS3.permute(0, 3, 1, 2),
            person=person_NSS[:, None],
            ignore=ignore_NSS[:, None],
            samples=plan.samples,
            valid=plan.valid,
            epoch=plan.epoch,
            skipped=self._records.skipped(plan),
        )

    def _buffers(self) -> Pixels:
        """Of a batch on the CPU."""
        planes = self._config.batch_size, self._side, self._side
        return host_buffer(*planes, 3), host_buffer(*planes), host_buffer(*planes)

    def close(self) -> None:
        """Stop the threads, give the memory back. See `BatchSource`."""
        self._crew.close()
        self._ring.clear()
        self._store.release()


def _check_device(name: str) -> torch.device:
    device = torch.device(name)
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device={name!r} is not possible with the resident loader; use cuda or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={name!r} is not there: torch finds {torch.cuda.device_count()} CUDA devices; "
            "use device='cpu', or check the driver with nvidia-smi"
        )
    return device
