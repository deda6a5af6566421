"""The limits beside which the suites' figures are read: what this machine could do at best.

Each function gives `Work`, so that a limit is measured in turn with what it limits. Data is random, and larger than
the processor's caches where these would make a limit look higher than it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from bench.timing import Work
from cache.choices import Precision
from cache.messages import message
from preprocess.image import decode_rgb, fit_box, opencv_threads
from train.process import tf32
from train.step import DTYPES

U8 = npt.NDArray[np.uint8]
T = TypeVar("T")

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


def copy_samples(pool: ThreadPoolExecutor, threads: int, side: int, samples: int, ring: int) -> Work:
    """Write the bytes of unaugmented batches: copy the pixels of samples in random order, fill their two planes.

    There are `samples` distinct samples in memory, and the reused buffers hold `ring` of them, as in a loader. Each of
    the pool's threads takes its share; an item is a sample.
    """
    pixels = 3 * side * side
    source = np.random.default_rng(0).integers(0, 256, (samples, pixels), np.uint8)
    order = np.random.default_rng(1).permutation(samples)
    target = np.zeros((ring, 5 * side * side), np.uint8)

    def work(thread: int) -> None:
        for number in range(thread, samples, threads):
            row = target[number % ring]
            np.copyto(row[:pixels], source[order[number]])
            row[pixels:].fill(1)

    return Work(run=each(pool, work, range(threads)), items=samples)


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


def clear_planes(shapes: Sequence[tuple[int, int]], planes: int) -> Work:
    """Overwrite planes of these (height, width) with zeros, in one thread and one reused buffer; an item is a shape."""
    buffer = np.empty(max(height * width for height, width in shapes), np.uint8)

    def run() -> None:
        for height, width in shapes:
            for _ in range(planes):
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
