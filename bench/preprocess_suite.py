"""Photos to a cache: whole builds against decoding and shrinking the same photos and doing nothing else."""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.ceilings import crew, decode, decode_and_resize
from bench.config import Setup
from bench.material import Material
from bench.process import PEAK_MEMORY, run_program
from bench.replica import repeat_dataset
from bench.report import Row
from bench.timing import Rates, Work, measure_together
from cache.child import end_with_parent
from cache.record import RecordLayout
from cache.spec import CacheSpec
from preprocess.build import BuildConfig, build_cache
from preprocess.errors import ImageError
from preprocess.sample import make_record
from preprocess.sources import Split, read_split

MOST_ROUNDS = 3
"""A build takes seconds: long enough not to need as many runs as the others."""

BUILT, BUILT_SHORT = 1_500, 900
"""Images of a build, at least; photos are repeated until there are as many. What a build begins and ends with, and the
last sync, then weigh as they do on a few thousand photos and not as on a few hundred. The second number where the
photos are drawn."""

MEMORY_IMAGES, SHORT_MEMORY_IMAGES, QUICK_MEMORY_IMAGES = (100, 5_000), (100, 2_500), (50, 500)
"""Builds of which the memory is compared; the second numbers where the photos are drawn, which takes time."""

_BUILD = f"""
{PEAK_MEMORY}
import sys
from pathlib import Path
from cache.spec import CacheSpec
from preprocess.build import BuildConfig, build_cache
coco, out, side, threads = sys.argv[1:]
build_cache(BuildConfig(
    coco=Path(coco), out=Path(out), spec=CacheSpec(side=int(side)), splits=("train",), workers=int(threads)
))
print(peak_memory())
"""

NOTE = "whole builds: reading the JSON, drawing, packing, hashing, writing, syncing"


def preprocess_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Builds of each store and codec, from reading the JSON to the committed index."""
    photos = len(material.split.rows)
    least = BUILT_SHORT if material.drawn else BUILT
    images = photos if setup.config.quick else photos * -(-least // photos)
    coco = material.folder / "repeated"
    repeat_dataset(material.split, coco, images)
    files = [material.files[number % len(material.files)] for number in range(images)]
    specs = {
        "lmdb raw": CacheSpec(side=setup.side),
        "lmdb jpeg": CacheSpec(side=setup.side, codec="jpeg"),
        "zarr raw": CacheSpec(side=setup.side, store="zarr"),
    }
    raw = specs["lmdb raw"]
    _split[:] = [read_split(coco, "train", raw)]
    with crew(setup.threads) as pool, _processes(coco, raw, setup.threads) as processes:
        works = {name: _build(coco, material.folder / "builds", spec, setup.threads) for name, spec in specs.items()}
        works["decode"] = decode(pool, files)
        works["floor"] = decode_and_resize(pool, files, setup.side)
        works["threads"] = _records(pool, images, raw)
        works["processes"] = _records(processes, images, raw)
        found = measure_together(works, seconds=setup.seconds, rounds=min(setup.rounds, MOST_ROUNDS))
    common: dict[str, Any] = {
        "suite": "preprocess",
        "setup": f"{material.photos_name} as {images}, side {setup.side}, {setup.threads} threads",
    }
    rate = {**common, "unit": "images/s"}
    resize, alone = "cv2.imdecode + INTER_AREA", "decoding alone"
    for name in specs:
        yield Row.measured(found[name], name=name, limit=found["floor"], limit_name=resize, note=NOTE, **rate)
    for name in specs:
        times = found["floor"].over(found[name])
        yield Row.measured(times, name=f"{name}: wall time, times {resize}", unit="times", **common)
    for name in specs:
        yield Row.measured(
            found[name], name=f"{name}, against decoding", limit=found["decode"], limit_name=alone, **rate
        )
    yield Row.measured(found["floor"], name=resize, limit=found["decode"], limit_name=alone, ours=False, **rate)
    for name, note in (
        ("threads", "as builds do it"),
        ("processes", "their records are thrown away, no byte of them is sent: the best case of processes"),
    ):
        yield Row.measured(
            found[name], name=f"making records in {name}", limit=found["floor"], limit_name=resize, note=note, **rate
        )
    yield from _memory_rows(setup, material)


def _build(coco: Path, folder: Path, spec: CacheSpec, threads: int) -> Work:
    numbers, folder = count(), folder / f"{spec.store} {spec.codec}"
    images = len(read_split(coco, "train", spec).rows)

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        os.sync()  # what the build before has left the disk to do is no part of this one

    def run() -> None:
        out = folder / str(next(numbers))
        build_cache(BuildConfig(coco=coco, out=out, spec=spec, splits=("train",), workers=threads))

    return Work(run=run, items=images, prepare=clear)


# What a process of the crew works on: each reads it once, so that nothing but numbers has to be sent.
_split: list[Split] = []


def _processes(coco: Path, spec: CacheSpec, number: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(number, mp_context=context, initializer=_open_split, initargs=(coco, spec))


def _open_split(coco: Path, spec: CacheSpec) -> None:
    end_with_parent()
    cv2.setNumThreads(1)
    _split[:] = [read_split(coco, "train", spec)]


def _records(pool: ThreadPoolExecutor | ProcessPoolExecutor, images: int, spec: CacheSpec) -> Work:
    parts = np.array_split(np.arange(images), max(1, images // 16))

    def run() -> None:
        for _ in pool.map(partial(_make_records, spec), parts):
            pass

    return Work(run=run, items=images)


def _make_records(spec: CacheSpec, numbers: Any) -> None:
    (split,), layout = _split, RecordLayout.of(spec)
    buffer = np.empty(layout.most_bytes, np.uint8)
    for number in numbers:
        row = split.rows[number]
        try:
            make_record(spec, layout, split, row, split.read(row), buffer)
        except ImageError:  # a build rejects it
            continue


def _memory_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Peak memory of builds of few and of many images, each in a process of its own."""
    several = QUICK_MEMORY_IMAGES if setup.config.quick else SHORT_MEMORY_IMAGES if material.drawn else MEMORY_IMAGES
    for images in several:
        coco, out = material.folder / f"memory {images}", material.folder / "memory cache"
        repeat_dataset(material.split, coco, images)
        (peak,) = run_program(_BUILD, coco, out, setup.side, setup.threads)
        shutil.rmtree(coco)
        shutil.rmtree(out)
        if not peak:
            continue
        yield Row.measured(
            Rates((peak / 1e6,)),
            suite="preprocess",
            setup=f"{images:,} images, side {setup.side}, {setup.threads} threads",
            name=f"lmdb raw, {images:,} images: peak memory",
            unit="MB",
            note="of the process, with Python and libraries",
        )
