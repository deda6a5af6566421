"""What no loader can beat: copying the same bytes, decoding the same JPEGs. In our own environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg

from bench.ceilings import copy_samples, thread_pool
from bench.peers.feed import Feed
from bench.peers.task import Task
from cache.reader import CacheReader

RING_BATCHES = 3
"""Batches that the reused buffers hold, as in our loaders."""

CHUNK = 256
"""Images that are decoded between two looks at the clock."""


@contextmanager
def open_feed(task: Task) -> Iterator[Feed]:
    """Copying where the codec is raw, else decoding; both by `task.threads` threads."""
    with thread_pool(task.threads) as pool:
        if task.codec == "raw":
            work = copy_samples(pool, task.threads, task.side, task.samples, RING_BATCHES * task.batch_size)
            yield Feed(_endless(work.run, task.samples), "NumPy", lead=1)
            return
        with CacheReader(task.folder / "cache-jpeg", "train") as reader:
            order = np.random.default_rng(0).permutation(len(reader)).tolist()
            jpegs = [reader.fields(sample).image for sample in order]  # views: of as many places as there are records
            rows = np.zeros((RING_BATCHES * task.batch_size, 3 * task.side**2), np.uint8)
            at = 0

            def decode(first: int) -> None:
                for number in range(at + first, at + CHUNK, task.threads):
                    simplejpeg.decode_jpeg(jpegs[number % len(jpegs)], "RGB", buffer=rows[number % len(rows)])

            def run() -> None:
                nonlocal at
                for _ in pool.map(decode, range(task.threads)):
                    pass
                at += CHUNK

            yield Feed(_endless(run, CHUNK), f"simplejpeg {simplejpeg.__version__}", lead=1)
            jpegs.clear()


def _endless(run: Callable[[], object], samples: int) -> Callable[[], Iterator[int]]:
    def epoch() -> Iterator[int]:
        while True:
            run()
            yield samples

    return epoch
