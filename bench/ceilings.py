"""The limits beside which the suites' figures are read: what this machine could do at best.

Each function gives `Work`, so that a limit is measured in turn with what it limits. Data is random, and larger than
the processor's caches where these would make a limit look higher than it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import torch

from bench.timing import Work, measure_together
from cache.arrays import I64, U8
from cache.choices import Precision
from cache.messages import joined, message
from cache.record import RecordLayout
from loader.kernels import copy_images
from loader.prefetch import host_buffer
from preprocess.image import decode_rgb, fit_box, opencv_threads
from train.process import tf32
from train.step import DTYPES

T = TypeVar("T")

PAGE = 4096
"""Bytes of a row that STREAM's copy moves at a time: a page, which holds whole cache lines."""

GEMM_SIZE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices, large enough to bring a device near its peak."""


@contextmanager
def thread_pool(threads: int) -> Iterator[ThreadPoolExecutor]:
    """A pool of threads; OpenCV's own threads, which would compete with them, are off meanwhile."""
    with opencv_threads(1), ThreadPoolExecutor(threads, thread_name_prefix="bench") as pool:
        yield pool


def thread_count(threads: int) -> str:
    """A number of threads in words, as names of rows give it."""
    return message("{threads} threads", threads=threads) if threads > 1 else message("1 thread")


def each(pool: Executor, work: Callable[[T], object], items: Sequence[T]) -> Callable[[], None]:
    """A call that does `work` on all items, in the pool's threads or processes."""

    def run() -> None:
        for _ in pool.map(work, items):  # raises what the work raises
            pass

    return run


def copy_memory(pool: ThreadPoolExecutor, threads: int, size: int) -> Work:
    """Copy `size` bytes of memory, a part in each thread; an item is a byte copied (read once, written once)."""
    source = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    target = np.zeros(size, np.uint8)
    cuts = np.linspace(0, size, threads + 1).astype(int)
    parts = [slice(first, last) for first, last in pairwise(cuts.tolist())]
    return Work(run=each(pool, lambda part: np.copyto(target[part], source[part]), parts), items=size)


def copying_name(found: str) -> str:
    """What `copy_samples` found to be the fastest, in words."""
    kind, threads = found.split()
    how = message("stores past the caches") if kind == "streamed" else message("plain copying")
    return joined(", ", [how, thread_count(int(threads))])


def copy_samples(stack: ExitStack, threads: int, side: int, samples: int, ring: int) -> tuple[Work, str]:
    """Move the bytes of unaugmented batches: copy raw records in random order, and overwrite what unpacked planes add.

    That is a loader's traffic without its work: there are `samples` distinct records in memory, and the reused buffers
    hold `ring` samples of `5 S*S` bytes. An item is a sample. It is done in the fastest of these ways, which are tried
    first: plainly, so that a cache may keep the buffers; or by the kernel that prefetches and stores past the caches,
    which writes to memory but reads nothing that it overwrites; each in one thread, in `threads`, and in twice as many
    unless `threads` is 1. Its name is returned, too: `streamed` or `plain`, and the threads. They end with the stack.
    """
    pool = stack.enter_context(thread_pool(2 * threads))
    stored, ring = RecordLayout(side, "raw").raw_bytes, max(ring, 2 * threads)
    source = np.random.default_rng(0).integers(0, 256, (samples, stored), np.uint8)
    order = np.random.default_rng(1).permutation(samples)
    ones = np.ones(5 * side * side - stored, np.uint8)  # small: it is read from a cache
    copied, added = (host_buffer(ring, size).numpy() for size in (stored, ones.size))

    def stream(rows: slice, numbers: slice) -> None:
        chunk = order[numbers]
        _stream_rows(source, chunk, copied[rows])
        _stream_rows(ones[None], 0 * chunk, added[rows])

    def plain(rows: slice, numbers: slice) -> None:
        for row, added_row, number in zip(copied[rows], added[rows], order[numbers], strict=False):
            np.copyto(row, source[number])
            added_row.fill(1)

    def work(move: Callable[[slice, slice], None], workers: int, worker: int) -> None:
        share = ring // workers
        for first in range(worker * share, samples, workers * share):
            move(slice(worker * share, (worker + 1) * share), slice(first, first + share))

    works = {
        f"{name} {workers}": Work(run=each(pool, partial(work, move, workers), range(workers)), items=samples)
        for name, move in (("streamed", stream), ("plain", plain))
        for workers in ({1, threads, 2 * threads} if threads > 1 else {1})
    }
    found = measure_together(works, seconds=0.3, rounds=3)
    best = max(works, key=lambda name: max(found[name].values))
    return works[best], best


def _stream_rows(source: U8, numbers: I64, target: U8) -> None:
    """Copy these rows of the source, past the caches, to the first rows of the target; both are contiguous."""
    addresses = np.repeat(source.ctypes.data + source.shape[1] * numbers[:, None], 3, axis=1)  # only the first counts
    copy_images(addresses, target[: len(numbers)])


def dram_copy(pool: ThreadPoolExecutor, threads: int, size: int) -> Work:
    """STREAM's copy of `size` bytes, whole MiB; an item is a byte, and as STREAM does it, reads and writes count.

    No others happen, as the kernel stores past the caches and so does not read what it overwrites.
    """
    source, target = (host_buffer(size >> 20, 1 << 20).numpy() for _ in range(2))
    source[:] = 1
    parts = [slice(*cut) for cut in pairwise(np.linspace(0, len(source), threads + 1).astype(int).tolist())]
    run = each(pool, lambda part: _stream_rows(source, np.arange(part.start, part.stop), target[part]), parts)
    return Work(run=run, items=2 * source.size)


def decode(pool: ThreadPoolExecutor, images: Sequence[bytes]) -> Work:
    """Decode images that are in memory; an item is an image."""

    def work(image: bytes) -> None:
        decode_rgb(image)  # the pool would keep what is returned

    return Work(run=each(pool, work, images), items=len(images))


def decode_and_resize(pool: ThreadPoolExecutor, images: Sequence[bytes], side: int) -> Work:
    """Decode images and shrink them to letterbox size, both by OpenCV; an item is an image."""

    def work(image: bytes) -> None:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        box = fit_box(pixels.shape[0], pixels.shape[1], side, "letterbox")
        cv2.resize(pixels, (box.width, box.height), interpolation=cv2.INTER_AREA)

    return Work(run=each(pool, work, images), items=len(images))


def clear_planes(shapes: Sequence[tuple[int, int]]) -> Work:
    """Overwrite two planes of each (height, width) with zeros, in one thread and reused buffers; an item is a shape."""
    buffers = np.empty((2, max(height * width for height, width in shapes)), np.uint8)

    def run() -> None:
        for height, width in shapes:
            for buffer in buffers:
                buffer[: height * width].fill(0)

    return Work(run=run, items=len(shapes))


def multiply_matrices(precision: Precision, device: str, size: int | None = None) -> Work:
    """Multiply two square matrices with torch, in its own threads; an item is a floating-point operation."""
    size = size or GEMM_SIZE[device]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator).to(device, DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(a)
    return Work(run=tf32(precision)(partial(torch.mm, a, b, out=out)), items=2 * size**3)


def product_name(precision: Precision) -> str:
    """The name of the limit that `multiply_matrices` gives."""
    return message("matrix product, {precision}", precision=precision)


def copy_tensor(source: str, target: str, size: int) -> Work:
    """Copy `size` bytes by torch, between devices (from pinned memory) or on one; an item is a byte copied."""
    pinned = source == "cpu" and target != "cpu"
    from_T = torch.ones(size, dtype=torch.uint8, device=source, pin_memory=pinned)
    to_T = torch.zeros(size, dtype=torch.uint8, device=target)
    return Work(run=lambda: to_T.copy_(from_T, non_blocking=True), items=size)


CAN_EVICT = hasattr(os, "posix_fadvise")
"""Whether the system can be asked to drop a file from its page cache."""


def evict(path: Path) -> None:
    """Drop a file from the page cache. The disk may still have it in a cache of its own."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_through(path: Path, block: int) -> None:
    """Read a file from end to end, `block` bytes at a time, and throw them away."""
    buffer = bytearray(block)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def read_disk(folder: Path, size: int) -> Work | None:
    """Read a file of `size` random bytes that the page cache does not hold; an item is a byte.

    The file stays in `folder`. None where the system cannot be asked to drop it.
    """
    if not CAN_EVICT:
        return None
    path = folder / "disk.bin"
    path.write_bytes(np.random.default_rng(0).bytes(size))

    def run() -> None:
        evict(path)
        read_through(path, 1 << 22)

    return Work(run=run, items=size)
