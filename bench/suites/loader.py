"""The suite `loader`: our loaders against copying the same bytes, a plain DataLoader and, if asked, other libraries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import sleep

from bench.baseline import CocoMasks, OnTheFly, plain_loader
from bench.ceilings import copy_samples, copying_name, decode, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.peers.suite import peer_suite
from bench.report import Row, times_name
from bench.timing import Rates, Work
from bench.workloads import loader_config, pull, run_program
from cache.choices import Backend, Level
from cache.messages import joined, message
from cache.reader import CacheReader
from loader.batch import LoaderConfig
from loader.loader import open_loader

MOST_COPIED = 1 << 30
"""Most bytes of random pixels that the limit copies; a cache may be larger than memory."""

DECODED_SAMPLES = 512
"""Most JPEGs of a cache that the limit decodes."""

ON_THE_FLY_SAMPLES = 64
"""Fewest samples in one call of the plain DataLoader, so that its workers are busy most of the time."""

PLAIN = message("plain DataLoader, on the fly")

WARM_EPOCHS, EPOCHS, QUICK_EPOCHS = 2, 20, 4
"""Epochs after which a process's memory is read: first when all buffers exist, then to see whether it grows."""

STARTS, QUICK_STARTS = 3, 2
"""Processes whose first batch is timed."""

SETTLE = 0.5
"""Seconds until DALI or a DataLoader has made the batches it has begun."""


def loader_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Samples per second in random order, the page cache warm, every batch thrown away."""
    variants: list[tuple[Backend, Level]] = [("native", "none"), ("native", "light")]
    if setup.device == "cuda":
        variants.append(("resident", "light"))
    if find_spec("nvidia") and find_spec("nvidia.dali"):
        # Augmenting with DALI on a CPU is too slow for a first impression.
        variants += [("dali", "none")] if setup.config.quick else [("dali", "none"), ("dali", "light")]
    names = [variant_name(*variant) for variant in variants]
    with ExitStack() as stack:
        works = {PLAIN: _plain(setup, material)}  # first: its workers are forked before there are threads of ours
        stack.callback(works.clear)  # ends the workers
        works["limit"], limit_name = loading_limit(stack, setup, material.cache)
        for name in (PLAIN, "limit"):  # what they follow goes on with the batches that it has begun
            works[name] = dataclasses.replace(works[name], prepare=partial(sleep, SETTLE))
        for name, (backend, level) in zip(names, variants, strict=True):
            config = loader_config(setup, material.cache, backend, level)
            works[name] = pull(stack.enter_context(open_loader(config)))
        found = setup.measure(works)
    described = joined(", ", [setup.shape, setup.parallel, material.cache_name])
    workers = message("{workers} workers", workers=setup.threads)
    row = partial(Row.measured, suite="loader")
    rate = partial(row, unit="samples/s", limit=found["limit"], limit_name=limit_name)
    for name in names:
        yield rate(found[name], name=name, setup=described)
    for name in names[:2]:
        yield row(found[name].over(found[PLAIN]), name=times_plain(name), setup=described, unit="times")
    described = joined(", ", [setup.shape, workers, material.photos_name])
    note = message("decodes, draws with pycocotools and resizes each sample anew; no augmentation")
    yield rate(found[PLAIN], name=PLAIN, setup=described, note=note, ours=False)
    yield from _process_rows(setup, material)
    if setup.config.peers:
        yield from peer_suite(setup, material)


def variant_name(backend: Backend, level: Level) -> str:
    """The name of the row of a backend at a level of augmentation."""
    return message("{backend}, augmentation {level}", backend=backend, level=level)


def times_plain(name: str) -> str:
    """The name of the row that compares a loader with the plain DataLoader."""
    return times_name(name, message("the plain DataLoader"))


def _plain(setup: Setup, material: Material) -> Work:
    # The same number of batches for each worker, so that all are busy from beginning to end.
    together = setup.batch_size * setup.threads
    samples = together * -(-ON_THE_FLY_SAMPLES // together)
    dataset = OnTheFly(material.paths, CocoMasks(material.split, material.spec.categories), setup.side, samples)
    loader = plain_loader(dataset, setup.batch_size, setup.threads)

    def run() -> None:
        for _ in loader:
            pass

    run()
    return Work(run=run, items=samples)


def loading_limit(stack: ExitStack, setup: Setup, cache: Path) -> tuple[Work, str]:
    """The limit of a loader of this cache, and its name; its threads end with the stack."""
    with CacheReader(cache, "train") as reader:
        if reader.layout.codec == "jpeg":
            step = -(-len(reader) // DECODED_SAMPLES)
            jpegs = [reader.layout.split(reader.record(n)).image.tobytes() for n in range(0, len(reader), step)]
            return decode(stack.enter_context(thread_pool(setup.threads)), jpegs), message("decoding the same JPEGs")
        samples = max(1, min(len(reader), MOST_COPIED // reader.layout.image_bytes))
    ring = setup.batch_size * (LoaderConfig(cache=cache).prefetch + 1)
    work, found = copy_samples(stack, setup.threads, setup.side, samples, ring)
    return work, joined(": ", [message("copying the same bytes"), copying_name(found)])


_PROGRAM = """
import sys, time
from pathlib import Path
from loader import LoaderConfig, open_loader
import loader.native

def memory():
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssAnon"].split()[0]) * 1024 / 1e6

cache, batch_size, threads, warm, epochs = sys.argv[1], *map(int, sys.argv[2:])
config = LoaderConfig(cache=Path(cache), batch_size=batch_size, backend="native", augment="light", threads=threads)
start = time.perf_counter()
with open_loader(config) as batches:
    next(iter(batches))
    first = time.perf_counter() - start
    before = memory()
    for epoch in range(epochs):
        for _ in batches:
            pass
        if epoch == warm - 1:
            before = memory()
    print(first, before, memory())
"""


def _process_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Time of the first batch and growth of memory of the native loader, augmenting, in fresh processes.

    Memory is that of the process, without pages of files.
    """
    epochs, starts = (QUICK_EPOCHS, QUICK_STARTS) if setup.config.quick else (EPOCHS, STARTS)
    arguments = material.cache, setup.batch_size, setup.threads, WARM_EPOCHS
    run_program(_PROGRAM, *arguments, 0)  # it may still have to compile
    runs = [run_program(_PROGRAM, *arguments, count) for count in (*[0] * (starts - 1), epochs)]
    _, before, after = runs[-1]
    described = joined(", ", [setup.shape, setup.parallel, material.cache_name, message("a process of its own")])
    row = partial(Row.measured, suite="loader", setup=described)
    note = message("from opening the cache; libraries are imported, kernels compiled by an earlier process")
    yield row(Rates(tuple(first for first, _, _ in runs)), name=message("native, first batch"), unit="s", note=note)
    for number, megabytes in ((WARM_EPOCHS, before), (epochs, after)):
        name = message("native, memory after {number} epochs", number=number)
        yield row(megabytes, name=name, unit="MB", note=message("of the process, not of files"))
