"""What no loader can beat: copying the same bytes, decoding the same JPEGs. In our own environment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import numpy as np
import simplejpeg

from bench.ceilings import copy_samples, thread_pool
from bench.peers.child import Feed
from bench.peers.task import Task
from cache.reader import CacheReader

RING_BATCHES = 3
"""Batches that the reused buffers hold, as in our loaders."""

CHUNK = 256
"""Images that are decoded between two looks at the clock."""


def open_feed(task: Task, stack: ExitStack) -> Feed:
    """Copying where the codec is raw, else decoding; both by `task.threads` threads."""
    pool = stack.enter_context(thread_pool(task.threads))
    ring = RING_BATCHES * task.batch_size
    if task.codec == "raw":
        work = copy_samples(pool, task.threads, task.side, task.samples, ring)
        return lambda: _endless(work.run, task.samples)
    reader = stack.enter_context(CacheReader(task.folder / "cache-jpeg", "train"))
    order = np.random.default_rng(0).permutation(len(reader)).tolist()
    jpegs = [reader.fields(sample).image for sample in order]  # views, spread over as many bytes as there are records
    stack.callback(jpegs.clear)
    rows = np.zeros((ring, 3 * task.side**2), np.uint8)
    starts = count(0, CHUNK)

    def decode(numbers: range) -> None:
        for number in numbers:
            simplejpeg.decode_jpeg(jpegs[number % len(jpegs)], "RGB", buffer=rows[number % ring])

    def run() -> None:
        start = next(starts)
        shares = [range(start + first, start + CHUNK, task.threads) for first in range(task.threads)]
        for _ in pool.map(decode, shares):
            pass

    return lambda: _endless(run, CHUNK)


def _endless(run: Callable[[], object], samples: int) -> Iterator[int]:
    while True:
        run()
        yield samples
