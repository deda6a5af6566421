"""The suite `preprocess`: whole builds of a cache, against only decoding the same photos."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from bench.ceilings import decode, decode_and_resize, thread_pool
from bench.config import Setup
from bench.material import Material, repeat_dataset
from bench.report import Row
from bench.timing import Work
from bench.workloads import PEAK_MEMORY, run_program
from cache.messages import joined, message
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache

MOST_ROUNDS = 3
"""Runs of each: a build takes seconds, and needs fewer of them than other suites."""

BUILT, BUILT_SHORT = 1_500, 900
"""Least images of a build, for which photos are repeated: the constant costs of a build and the last sync then weigh as
they do with a few thousand photos. The second number where the photos are drawn."""

MEMORY_IMAGES, SHORT_MEMORY_IMAGES, QUICK_MEMORY_IMAGES = (100, 5_000), (100, 2_500), (50, 500)
"""Images of the builds whose memory is compared; the second numbers where the photos are drawn."""

_BUILD = f"""
{PEAK_MEMORY}
import sys
from pathlib import Path
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache
coco, out, side, threads = sys.argv[1:]
build_cache(BuildConfig(
    coco=Path(coco), out=Path(out), spec=CacheSpec(side=int(side)), splits=("train",), workers=int(threads)
))
print(peak_memory())
"""


def preprocess_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Images per second of builds of each store and codec, from reading the JSON to the committed index."""
    photos = len(material.split.rows)
    least = BUILT_SHORT if material.drawn else BUILT
    images = photos if setup.config.quick else photos * -(-least // photos)
    coco = material.folder / "repeated"
    repeat_dataset(material.split, coco, images)
    files = [material.files[number % len(material.files)] for number in range(images)]
    raw = CacheSpec(side=setup.side)
    jpeg, zarr = dataclasses.replace(raw, codec="jpeg"), dataclasses.replace(raw, store="zarr")
    specs = {"lmdb raw": raw, "lmdb jpeg": jpeg, "zarr raw": zarr}
    with thread_pool(setup.threads) as pool:
        folder = material.folder / "builds"
        works = {name: _build(coco, folder, spec, setup.threads, images) for name, spec in specs.items()}
        works["decode"] = decode(pool, files)
        works["resize"] = decode_and_resize(pool, files, setup.side)
        found = setup.measure(works, rounds=min(setup.rounds, MOST_ROUNDS))
    repeated = message("{photos} as {images}", photos=material.photos_name, images=images)
    described = joined(", ", [repeated, message("side {side}", side=setup.side), setup.parallel])
    row = partial(
        Row.measured,
        suite="preprocess",
        setup=described,
        unit="images/s",
        limit=found["decode"],
        limit_name=message("decoding alone"),
    )
    note = message("whole builds: reading the JSON, drawing, packing, hashing, writing, syncing")
    for name in specs:
        yield row(found[name], name=name, note=note)
    yield row(found["resize"], name="cv2.imdecode + INTER_AREA", ours=False)
    yield from _memory_rows(setup, material)


def _build(coco: Path, folder: Path, spec: CacheSpec, threads: int, images: int) -> Work:
    numbers, folder = count(), folder / f"{spec.store} {spec.codec}"

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        os.sync()  # writes left over by the previous build are no part of this one

    def run() -> None:
        out = folder / str(next(numbers))
        build_cache(BuildConfig(coco=coco, out=out, spec=spec, splits=("train",), workers=threads))

    return Work(run=run, items=images, prepare=clear)


def _memory_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Peak memory of builds of few and of many images, each in a process of its own."""
    sizes = QUICK_MEMORY_IMAGES if setup.config.quick else SHORT_MEMORY_IMAGES if material.drawn else MEMORY_IMAGES
    for images in sizes:
        coco, out = material.folder / f"memory {images}", material.folder / "memory cache"
        repeat_dataset(material.split, coco, images)
        (peak,) = run_program(_BUILD, coco, out, setup.side, setup.threads)
        shutil.rmtree(coco)
        shutil.rmtree(out)
        if peak:
            described = [message("{images:,} images", images=images), message("side {side}", side=setup.side)]
            row = partial(Row.measured, suite="preprocess", setup=joined(", ", [*described, setup.parallel]))
            name = message("lmdb raw, {images:,} images: peak memory", images=images)
            yield row(peak / 1e6, name=name, unit="MB", note=message("of the process, with Python and libraries"))
