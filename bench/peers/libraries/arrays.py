"""Libraries that give NumPy's arrays: NumPy alone, and Grain.

NumPy reads records of one array that is mapped into memory, in a loop or in threads: the least that one can write
oneself. Grain has a file of its own, ArrayRecord.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.child import Batch, Feed
from bench.peers.task import U8, Samples, Task, unpack

RECORDS, ARRAY_RECORD = "records.npy", "samples.array_record"
"""Files of the same raw records: their pixels, then both planes, packed."""


def write_records(task: Task, folder: Path) -> None:
    """Write the records as an array, `(N, 3*S*S + 2*S*S/8)`."""
    samples = Samples(task.folder, task.samples)
    shape = len(samples), 13 * task.side**2 // 4
    records = np.lib.format.open_memmap(folder / RECORDS, "w+", np.uint8, shape)
    for number, row in enumerate(records):
        row[:] = np.frombuffer(samples.encoded(number, "raw") + samples.bits(number), np.uint8)


class Records:
    """The records in that array."""

    def __init__(self, task: Task) -> None:
        self._records = np.load(task.folder / task.dataset / RECORDS, mmap_mode="r")
        self._shape, self._pixels = (-1, task.side, task.side, 3), 3 * task.side**2

    def sample(self, number: int) -> tuple[U8, U8]:
        """The image of a record, `(S, S, 3)`, and its planes, `(2, S, S)`."""
        record = self._records[number]
        return record[: self._pixels].reshape(self._shape[1:]), unpack(record[self._pixels :], self._shape[1])

    def batch(self, numbers: Sequence[int], image: U8 | None = None) -> Batch:
        """A batch; `image`, `(N, S*S*3)`, is overwritten if it is given."""
        image = np.empty((len(numbers), self._pixels), np.uint8) if image is None else image
        packed = np.empty((len(numbers), self._pixels // 12), np.uint8)
        for row, number in enumerate(numbers):
            image[row], packed[row] = self._records[number, : self._pixels], self._records[number, self._pixels :]
        planes = unpack(packed.reshape(-1), self._shape[1])
        return image.reshape(self._shape), planes[0::2], planes[1::2]


def shuffled(task: Task, epoch: int) -> list[list[int]]:
    """The numbers of the records of each batch of an epoch, in random order."""
    order, size = np.random.default_rng(epoch).permutation(task.samples).tolist(), task.batch_size
    return [order[first : first + size] for first in range(0, task.samples - size + 1, size)]


def open_numpy(task: Task, stack: ExitStack) -> Feed:
    """NumPy in a loop, which reuses the memory of the images; or, for more than one thread, in a pool of threads."""
    records, epochs = Records(task), count()
    if task.threads == 1:
        image = np.empty((task.batch_size, 3 * task.side**2), np.uint8)
        return lambda: (records.batch(numbers, image) for numbers in shuffled(task, next(epochs)))
    pool = stack.enter_context(ThreadPoolExecutor(task.threads))

    def epoch() -> Iterator[Batch]:
        pending = deque[Future[Batch]]()
        for numbers in shuffled(task, next(epochs)):
            pending.append(pool.submit(records.batch, numbers))
            if len(pending) > task.threads:
                yield pending.popleft().result()
        yield from (future.result() for future in pending)

    return epoch


def write_array_record(task: Task, folder: Path) -> None:
    """Write Grain's file: each record by itself and not compressed, as random access wants it."""
    from array_record.python.array_record_module import ArrayRecordWriter  # type: ignore[import-not-found]

    samples = Samples(task.folder, task.samples)
    writer = ArrayRecordWriter(str(folder / ARRAY_RECORD), "group_size:1,uncompressed")
    for number in range(len(samples)):
        writer.write(samples.encoded(number, "raw") + samples.bits(number))
    writer.close()


def open_grain(task: Task, stack: ExitStack) -> Feed:
    """Grain's pipeline: by worker processes, as its guide advises, or by threads that read: as the option `by` says."""
    import grain  # type: ignore[import-not-found]

    side, pixels = task.side, 3 * task.side**2

    def decode(record: bytes) -> tuple[Any, ...]:  # workers have no module of ours
        planes = np.unpackbits(np.frombuffer(record, np.uint8, offset=pixels), bitorder="little")
        return np.frombuffer(record, np.uint8, pixels).reshape(side, side, 3), *planes.reshape(2, side, side)

    source = grain.sources.ArrayRecordDataSource(str(task.folder / task.dataset / ARRAY_RECORD))
    dataset = grain.MapDataset.source(source).shuffle(seed=0).repeat().map(decode).batch(task.batch_size)
    threads = task.threads if task.options["by"] == "thread" else 0
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4 * threads))
    if not threads:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=task.threads))
    batches = iter(dataset)
    stack.callback(batches.close)
    return lambda: islice(batches, task.samples // task.batch_size)
