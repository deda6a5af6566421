"""Entries that need this project: limits and our loaders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count

import numpy as np
import simplejpeg

from bench.ceilings import copy_samples, each, thread_pool
from bench.peers.child import Feed
from bench.peers.task import Task
from cache.reader import CacheReader

RING_BATCHES = 3
"""Batches that the reused buffers of a limit hold, as in our loaders."""

CHUNK = 256
"""Images that are decoded between two readings of the clock."""


def open_limit(task: Task, stack: ExitStack) -> Feed:
    """What no loader can beat: copying the same bytes, see `copy_samples`, or decoding the same JPEGs."""
    ring = RING_BATCHES * task.batch_size
    if task.codec == "raw":
        work, task.found["copying"] = copy_samples(stack, task.threads, task.side, task.samples, ring)
        return lambda: _endless(work.run, task.samples)
    pool = stack.enter_context(thread_pool(task.threads))
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
        each(pool, decode, [range(start + thread, start + CHUNK, task.threads) for thread in range(task.threads)])()

    return lambda: _endless(run, CHUNK)


def _endless(run: Callable[[], object], samples: int) -> Iterator[int]:
    while True:
        run()
        yield samples


def open_ours(task: Task, stack: ExitStack) -> Feed:
    """One of our loaders, in random order. Options: `cache`, its folder; `backend`; `level` of augmentation."""
    from loader.batch import LoaderConfig
    from loader.loader import open_loader

    config = LoaderConfig(
        cache=task.folder / task.options["cache"],
        batch_size=task.batch_size,
        backend=task.options["backend"],
        augment=task.options["level"],
        threads=task.threads,
    )
    loader = stack.enter_context(open_loader(config))
    return lambda: ((batch.image, batch.person, batch.ignore) for batch in loader)


def open_torchvision(task: Task, stack: ExitStack) -> Feed:
    """Torchvision's transforms in a DataLoader's workers; it may have been built for another torch than is here."""
    from bench.peers.libraries.augmentation import open_loader
    from model.encoder_unet import import_torchvision

    import_torchvision()
    return open_loader(task, stack)
