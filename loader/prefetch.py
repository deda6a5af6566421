"""The prefetch queue: batches are made by a pool of threads, in a ring of buffers, before they are asked for."""

from __future__ import annotations

import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from functools import partial
from itertools import islice, pairwise
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from cache.arrays import U8
from loader.augment import Parameters, draw_parameters
from loader.batch import LoaderConfig
from loader.order import BatchPlan

Done = SimpleQueue[BaseException | None]
"""Receives what a job has raised, or None."""

Slot = TypeVar("Slot")


class ThreadPool:
    """Threads that do small jobs in the order in which they are given.

    At tens of thousands of samples a second a batch takes half a millisecond. A job of `concurrent.futures` costs a
    tenth of that in locks and conditions, most of it with the interpreter lock held; two queues cost a few
    microseconds.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], object], Done] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=_work, args=(self._jobs,), name=f"{name}-{number}", daemon=True)
            for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Callable[[], object], done: Done) -> None:
        """Have a job done by the next free thread, which then puts what it raised, or None, into `done`."""
        self._jobs.put((job, done))

    def close(self, seconds: float | None = None) -> None:
        """Finish the jobs that were given, then end the threads: wait for each, if need be only so many seconds.

        May be called again.
        """
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(seconds)
        self._threads.clear()


def _work(jobs: SimpleQueue[tuple[Callable[[], object], Done] | None]) -> None:
    # Not a method: a thread that held the pool would keep a forgotten loader, and its memory maps, alive.
    while (given := jobs.get()) is not None:
        job, done = given
        try:
            job()
        except BaseException as error:  # it is the caller's to raise
            done.put(error)
        else:
            done.put(None)
        del job, done, given


class PendingBatch(Generic[Slot]):
    """A batch that threads are making in the buffers of a slot; its parameters are None without augmentation."""

    def __init__(self, plan: BatchPlan, slot: Slot, parameters: Parameters | None) -> None:
        self.plan, self.slot, self.parameters = plan, slot, parameters
        self._unfinished = 0
        self._done: Done = SimpleQueue()

    def start(self, pool: ThreadPool, parts: int, work: Callable[[int, int], None]) -> None:
        """Have `work(first row, row after the last)` done by threads, once for each of `parts` parts of the batch."""
        rows = len(self.plan.samples)
        for first, last in pairwise(rows * part // parts for part in range(parts + 1)):
            pool.submit(partial(work, first, last), self._done)
        self._unfinished += parts

    def wait(self, *, abandoned: bool = False) -> None:
        """Wait until all parts are finished; unless `abandoned`, raise what one raised while others may be at work."""
        while self._unfinished:
            self._unfinished -= 1
            error = self._done.get()
            if error is not None and not abandoned:
                raise error


def draw(config: LoaderConfig, side: int, plan: BatchPlan) -> Parameters | None:
    """The augmentation of a batch, at a side in pixels; None if there is none."""
    if config.augmentation.identity:
        return None
    return draw_parameters(config.augmentation, side, config.seed, plan.epoch, plan.samples)


Pending = TypeVar("Pending", bound=PendingBatch[Any])


def prefetch(
    plans: Iterable[BatchPlan],
    slots: Sequence[Slot],
    start: Callable[[BatchPlan, Slot], Pending],
    stop: threading.Event,
) -> Generator[Pending]:
    """Start batches as far ahead as there are slots; yield each when it is ready, in order.

    One of the slots, of which there are two or more, is with the caller, until it asks for the next batch. `start`
    hands a batch to threads; `stop` is set while these have to end early, because the caller has closed the generator.
    """
    waiting, free = iter(plans), deque(slots)
    pending: deque[Pending] = deque()
    try:
        pending.extend(start(plan, free.popleft()) for plan in islice(waiting, len(slots) - 1))
        while pending:
            # The last free slot is the one that the caller has just given back by coming again.
            pending.extend(start(plan, free.popleft()) for plan in islice(waiting, 1))
            pending[0].wait()
            batch = pending.popleft()
            yield batch
            free.append(batch.slot)
    finally:
        stop.set()
        for batch in pending:
            batch.wait(abandoned=True)
        stop.clear()


_LINE = 64  # bytes of a line of the processor's caches, with which a buffer begins: see `loader.kernels`

_HUGE_PAGE = 1 << 21  # bytes; a large buffer begins with one and ends with one

OFF_LINE = 16
"""Bytes after a line. libjpeg-turbo stores past the processor's caches where rows begin with a multiple of 32 bytes
(`vmovntdq` in its `jdcolext-avx2.asm`). As it writes eight rows in turn, in bits, that takes longer than the caches do,
and the next reader finds the pixels only in memory: 731 microseconds instead of 708 for 384 x 384 pixels."""


def host_buffer(*shape: int, pinned: bool = False, off: int = 0) -> torch.Tensor:
    """Zeros, uint8, that begin with a line of the caches; where they are large, in huge pages if the system has some.

    `pinned` ones are locked in memory, so that a GPU can read them by itself. They begin `off` bytes after the line:
    `OFF_LINE` for buffers that JPEGs are decoded into.
    """
    size, unit = math.prod(shape), _LINE
    if pinned:
        memory = torch.zeros(size + 2 * unit, dtype=torch.uint8, pin_memory=True)
    else:  # in memory of NumPy, which asks for huge pages for what is large
        unit = _HUGE_PAGE if size >= 2 * _HUGE_PAGE else _LINE
        memory = torch.from_numpy(np.zeros((-(-size // unit) + 2) * unit, np.uint8))
    begin = -memory.data_ptr() % unit + off
    return memory[begin : begin + size].view(shape)


class Buffers:
    """Memory of the host for the pixels of one batch."""

    def __init__(self, batch_size: int, side: int, *, pinned: bool = False, off: int = 0) -> None:
        image_NHWC = host_buffer(batch_size, side, side, 3, pinned=pinned, off=off)
        person, ignore = (host_buffer(batch_size, 1, side, side, pinned=pinned) for _ in range(2))
        # Image `(N, 3, S, S)` in channels_last strides, person and ignore `(N, 1, S, S)`, uint8; and the same memory as
        # arrays, `(N, S*S*3)` and twice `(N, S*S)`.
        self.tensors: tuple[Tensor, Tensor, Tensor] = image_NHWC.permute(0, 3, 1, 2), person, ignore
        self.rows = [tensor.numpy().reshape(batch_size, -1) for tensor in (image_NHWC, person, ignore)]
        self._lent: list[weakref.ref[U8]] = []

    def lend(self) -> tuple[Tensor, Tensor, Tensor]:
        """The tensors once more, for somebody who may keep them, or views of them."""
        # Whatever shares memory with a tensor made from an array holds that array.
        image, person, ignore = arrays = [tensor.numpy() for tensor in self.tensors]
        self._lent = [weakref.ref(array) for array in arrays]
        return torch.from_numpy(image), torch.from_numpy(person), torch.from_numpy(ignore)

    @property
    def held(self) -> bool:
        """Whether somebody still has what was lent last."""
        return any(array() is not None for array in self._lent)


class Spares:
    """Buffers that take the place of those whose batch is still held by the caller: none is overwritten.

    A `for` loop holds a batch until it has the next one, and a loop that looks ahead one more. So that many buffers
    are kept, to be used again; with a caller who holds more batches, the memory of the oldest goes with its batch.
    """

    def __init__(self, make: Callable[[], Buffers]) -> None:
        self._make, self._spares = make, deque[Buffers](maxlen=2)

    def unless_held(self, buffers: Buffers) -> Buffers:
        """The same buffers, or others while somebody holds theirs."""
        if not buffers.held:
            return buffers
        spare = next((spare for spare in self._spares if not spare.held), None)
        if spare:
            self._spares.remove(spare)
        self._spares.append(buffers)
        return spare or self._make()
