"""The stages of training as work to be measured, where `bench.feed` and `bench.learner` do not have them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torch import Tensor

from bench.ceilings import can_forget, forget
from bench.learner import LEARNING_RATE
from bench.timing import Work
from cache.reader import CacheReader
from train.step import TrainStep

Batch = tuple[Tensor, Tensor, Tensor]

RECORDS = "records.bin"
"""Name of the file that `read_records` makes."""


def read_records(pool: ThreadPoolExecutor, threads: int, folder: Path, cache: Path, size: int) -> Work | None:
    """Read records in random order through a memory map, after the system was asked to forget them; an item is one.

    They are copied into a file of their own: of the cache itself others may have pages mapped, which are not forgotten.

    Args:
        pool: of `threads` threads; each takes its share.
        threads: see above.
        folder: where the file stays.
        cache: whose records of the split `train`, the first ones.
        size: bytes of all of them, about; one record is the least.

    Returns:
        None where a system cannot be asked.
    """
    if not can_forget():
        return None
    path, ends = folder / RECORDS, [0]
    with CacheReader(cache, "train") as reader, path.open("wb") as file:
        for number in range(len(reader)):
            if ends[-1] >= size:
                break
            ends.append(ends[-1] + file.write(reader.record(number).tobytes()))
    order = np.random.default_rng(0).permutation(len(ends) - 1).tolist()
    largest = max(int(size) for size in np.diff(ends))

    def run() -> None:
        forget(path)
        mapped = np.memmap(path, np.uint8, "r")

        def copy(thread: int) -> None:
            buffer = np.empty(largest, np.uint8)
            for number in order[thread::threads]:
                first, last = ends[number], ends[number + 1]
                np.copyto(buffer[: last - first], mapped[first:last])

        for _ in pool.map(copy, range(threads)):
            pass

    return Work(run=run, items=len(order))


def transfer(batch: Batch, device: str) -> Work:
    """Take a batch from locked memory to the device; an item is an image."""
    held = tuple(tensor.cpu().pin_memory() for tensor in batch)

    def run() -> None:
        for tensor in held:
            tensor.to(device, non_blocking=True)

    return Work(run=run, items=len(batch[0]))


def forward(step: TrainStep, batch: Batch) -> Work:
    """Network and loss, ready to go back; an item is an image."""
    return Work(run=lambda: step.forward(*batch), items=len(batch[0]))


def both_ways(step: TrainStep, batch: Batch) -> Work:
    """Network, loss, and back; an item is an image."""
    return Work(run=_both_ways(step, batch), items=len(batch[0]))


def update(step: TrainStep, batch: Batch) -> Work:
    """Clipping and optimizer, again and again on the gradients of one batch; an item is an image."""
    return Work(run=lambda: step.update(LEARNING_RATE), items=len(batch[0]), prepare=_both_ways(step, batch))


def _both_ways(step: TrainStep, batch: Batch) -> Callable[[], None]:
    def run() -> None:
        loss, _ = step.forward(*batch)
        step.backward(loss)

    return run
