"""Batches from a cache: our loaders against copying the same bytes, and against a plain DataLoader."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.baseline import CocoMasks, OnTheFly, plain_loader
from bench.ceilings import copy_samples, crew, decode
from bench.config import Setup
from bench.feed import loader_config, pull
from bench.loader_process import process_rows
from bench.material import Material
from bench.peers.suite import peer_suite
from bench.report import Row
from bench.timing import Work, measure_together
from cache.reader import CacheReader
from loader.augment import Level
from loader.batch import Backend, LoaderConfig
from loader.loader import open_loader

MOST_COPIED = 1 << 30
"""Bytes of random pixels for the limit; a cache may be larger than memory."""

DECODED_SAMPLES = 512
"""At most so many JPEGs of a cache are decoded for the limit."""

ON_THE_FLY_SAMPLES = 64
"""At least so many samples are one call of the plain DataLoader, so that its workers are busy most of the time."""

PLAIN = "plain DataLoader, on the fly"
TIMES = "{}: times the plain DataLoader"
"""Name of a row; for the loader's name."""

NATIVE = "native, augmentation none"


def loader_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Random order, the page cache warm, every batch thrown away."""
    variants: list[tuple[Backend, Level]] = [("native", "none"), ("native", "light")]
    if find_spec("nvidia") and find_spec("nvidia.dali"):
        # Augmenting with DALI on a CPU is too slow for a first impression.
        variants += [("dali", "none")] if setup.config.quick else [("dali", "none"), ("dali", "light")]
    names = [f"{backend}, augmentation {level}" for backend, level in variants]
    with ExitStack() as stack:
        works = {PLAIN: _plain(setup, material)}  # first: its workers are forked before there are threads of ours
        stack.callback(works.clear)  # lets go of the workers
        for name, (backend, level) in zip(names, variants, strict=True):
            config = loader_config(setup, material.cache, backend, level)
            works[name] = pull(stack.enter_context(open_loader(config)))
        works["limit"], limit_name = loading_limit(stack.enter_context(crew(setup.threads)), setup, material.cache)
        found = measure_together(works, seconds=setup.seconds, rounds=setup.rounds, synchronise=setup.synchronise)
    described = f"{setup.shape}, {setup.threads} threads, {material.cache_name}"
    common: dict[str, Any] = {"suite": "loader", "setup": described}
    rate: dict[str, Any] = {"unit": "samples/s", "limit": found["limit"], "limit_name": limit_name}
    for name in names:
        yield Row.measured(found[name], name=name, **common, **rate)
    for name in names[:2]:
        yield Row.measured(found[name].over(found[PLAIN]), name=TIMES.format(name), unit="times", **common)
    yield Row.measured(
        found[PLAIN],
        suite="loader",
        name=PLAIN,
        setup=f"{setup.shape}, {setup.threads} workers, {material.photos_name}",
        note="decodes, draws with pycocotools and resizes each sample anew; no augmentation",
        ours=False,
        **rate,
    )
    yield from process_rows(setup, material)
    if setup.config.peers:
        yield from peer_suite(setup, material)


def _plain(setup: Setup, material: Material) -> Work:
    # As many batches for each worker, so that all are busy from beginning to end.
    together = setup.batch_size * setup.threads
    samples = together * -(-ON_THE_FLY_SAMPLES // together)
    dataset = OnTheFly(material.paths, CocoMasks(material.coco, material.split), setup.side, samples)
    loader = plain_loader(dataset, setup.batch_size, setup.threads)

    def run() -> None:
        for _ in loader:
            pass

    run()
    return Work(run=run, items=samples)


def loading_limit(pool: ThreadPoolExecutor, setup: Setup, cache: Path) -> tuple[Work, str]:
    """What a loader of this cache cannot beat, and what that is."""
    with CacheReader(cache, "train") as reader:
        if reader.layout.codec == "jpeg":
            step = -(-len(reader) // DECODED_SAMPLES)
            jpegs = [reader.layout.split(reader.record(n)).image.tobytes() for n in range(0, len(reader), step)]
            return decode(pool, jpegs), "decoding the same JPEGs"
        samples = max(1, min(len(reader), MOST_COPIED // reader.layout.image_bytes))
    ring = setup.batch_size * (LoaderConfig(cache=cache).prefetch + 1)
    return copy_samples(pool, setup.threads, setup.side, samples, ring), "copying the same bytes"
