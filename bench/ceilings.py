"""What this machine could do at best: the limits beside which the suites' figures are read.

Each function gives `Work`, so that a limit is measured in turn with what it limits. Data is random, and larger than
the processor's caches, where those would otherwise flatter it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import torch

from bench.timing import Work
from preprocess.geometry import fit_box
from preprocess.image import decode_rgb

U8 = npt.NDArray[np.uint8]
T = TypeVar("T")

GEMM_SIZE = {"cpu": 2048, "cuda": 8192}
"""Rows and columns of the matrices: as many as bring a device near its peak."""

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@contextmanager
def crew(threads: int) -> Iterator[ThreadPoolExecutor]:
    """Threads for the limits, with OpenCV's own threads off meanwhile: they would only fight with these."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="bench") as pool:
            yield pool
    finally:
        cv2.setNumThreads(before)


def _each(pool: ThreadPoolExecutor, work: Callable[[T], object], items: Sequence[T]) -> Callable[[], None]:
    """A call that does `work` on all items, in the pool's threads."""

    def run() -> None:
        for _ in pool.map(work, items):
            pass

    return run


def copy_memory(pool: ThreadPoolExecutor, threads: int, size: int) -> Work:
    """Copy `size` bytes of memory, each thread its part; an item is a byte copied (read once, written once)."""
    source = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    target = np.zeros(size, np.uint8)
    cuts = np.linspace(0, size, threads + 1).astype(int)
    parts = [slice(first, last) for first, last in pairwise(cuts.tolist())]
    return Work(run=_each(pool, lambda part: np.copyto(target[part], source[part]), parts), items=size)


def copy_samples(pool: ThreadPoolExecutor, threads: int, side: int, samples: int, ring: int) -> Work:
    """Write the bytes of unaugmented batches: copy the pixels of samples in random order, fill their two planes.

    Args:
        pool: of `threads` threads; each takes its share of the samples.
        threads: see above.
        side: pixels.
        samples: distinct ones, in memory that was written just for this.
        ring: samples that the reused buffers hold, as in a loader.
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

    return Work(run=_each(pool, work, range(threads)), items=samples)


def decode(pool: ThreadPoolExecutor, images: Sequence[bytes]) -> Work:
    """Decode images that are in memory; an item is an image."""

    def work(image: bytes) -> None:
        decode_rgb(image)

    return Work(run=_each(pool, work, images), items=len(images))


def decode_and_resize(pool: ThreadPoolExecutor, images: Sequence[bytes], side: int) -> Work:
    """Decode images and shrink them to letterbox size, both by OpenCV; an item is an image."""

    def work(image: bytes) -> None:
        pixels = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        box = fit_box(pixels.shape[0], pixels.shape[1], side, "letterbox")
        cv2.resize(pixels, (box.width, box.height), interpolation=cv2.INTER_AREA)

    return Work(run=_each(pool, work, images), items=len(images))


def clear_planes(shapes: Sequence[tuple[int, int]], planes: int) -> Work:
    """Overwrite planes of these (height, width) with zeros, in one thread and one reused buffer; an item is a shape."""
    buffer = np.empty(max(height * width for height, width in shapes), np.uint8)

    def run() -> None:
        for height, width in shapes:
            for _ in range(planes):
                buffer[: height * width].fill(0)

    return Work(run=run, items=len(shapes))


def multiply_matrices(precision: str, device: str, size: int | None = None) -> Work:
    """Multiply two square matrices with torch, in its own threads; an item is a floating-point operation."""
    size = size or GEMM_SIZE[device]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator).to(device, _DTYPES[precision]) for _ in range(2))
    out = torch.empty_like(a)
    return Work(run=lambda: torch.mm(a, b, out=out), items=2 * size**3)


def copy_tensor(source: str, target: str, size: int) -> Work:
    """Copy `size` bytes by torch, from device to device or on one; an item is a byte copied. A GPU's host is locked."""
    locked = source != target
    from_T = torch.ones(size, dtype=torch.uint8, device=source, pin_memory=locked and source == "cpu")
    to_T = torch.zeros(size, dtype=torch.uint8, device=target)
    return Work(run=lambda: to_T.copy_(from_T, non_blocking=True), items=size)


def can_forget() -> bool:
    """Whether the system can be asked to forget a file."""
    return hasattr(os, "posix_fadvise")


def forget(path: Path) -> None:
    """Drop a file from the page cache. A disk may well remember it in a cache of its own."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_disk(folder: Path, size: int) -> Work | None:
    """Read a file of `size` random bytes after the system was asked to forget it; an item is a byte.

    The file stays in `folder`. None where a system cannot be asked.
    """
    if not can_forget():
        return None
    path, block = folder / "disk.bin", 1 << 22
    path.write_bytes(np.random.default_rng(0).bytes(size))

    def run() -> None:
        buffer = bytearray(block)
        forget(path)
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    return Work(run=run, items=size)
