"""The suite `stores`: records written to shards and read at random, against the same bytes without a store; and the
suite `verify`: checking a cache, against only reading its files.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, get_args

import numpy as np
import zarr

from bench.ceilings import each, read_through, thread_count, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Work
from cache.arrays import U8
from cache.choices import Store
from cache.integrity import check_split
from cache.messages import joined, message
from cache.reader import CacheReader
from cache.record import RecordLayout
from cache.shards import open_reader, open_writer, shard_name
from cache.spec import CacheSpec
from cache.storage import shard_files
from cache.zarr_shards import DIMENSIONS
from loader.prefetch import host_buffer
from preprocess.build.build import build_cache

SHARD_SAMPLES = 128
"""Samples of a shard, as in a cache."""

MOST_BYTES = 256 << 20
"""Bytes of random records: more than processor caches hold, few enough to be in memory twice."""

SLOW_READS = 16
"""Records in one call of zarr-python, which reads some hundreds per second."""

LIBRARY = message("zarr through zarr-python")

STORES: tuple[Store, ...] = get_args(Store)

Read = Callable[[int], tuple[U8, ...]]
"""Gives the bytes of a record, by its number, in pieces."""

Writer = Callable[[U8, Path], None]
"""Writes records to a new file or folder."""


def store_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Records of raw pixels per second, the page cache warm."""
    layout = RecordLayout(setup.side, "raw")
    samples = max(1, min(setup.megabytes * 10**6, MOST_BYTES) // layout.raw_bytes)
    records = np.random.default_rng(0).integers(0, 256, (samples, layout.raw_bytes), np.uint8)
    folder = material.folder / "stores"
    folder.mkdir()
    described = message("{samples} random records, side {side}", samples=samples, side=setup.side)
    row = partial(Row.measured, suite="stores", unit="samples/s")
    ways: dict[str, Writer] = {store: partial(_write_shard, store, layout) for store in STORES}
    ways["file"] = _write_file
    found = setup.measure({name: _write(way, folder / name, records[:SHARD_SAMPLES]) for name, way in ways.items()})
    writing = partial(row, setup=joined(", ", [described, thread_count(1)]), note=message("synced, both"))
    limit_name = message("writing the same bytes to a file")
    for store in STORES:
        title = message("{store}, writing", store=store)
        yield writing(found[store], name=title, limit=found["file"], limit_name=limit_name)
    order = np.random.default_rng(1).permutation(samples).tolist()
    with ExitStack() as stack:
        reads: dict[str, Read] = {store: _open(stack, store, folder, layout, records) for store in STORES}
        library = _open_library(folder)
        for threads in sorted({1, setup.threads}):
            with thread_pool(threads) as pool:
                ring = host_buffer(2 * setup.batch_size * threads, layout.raw_bytes).numpy()
                gather = partial(_gather, pool, threads, ring=ring)
                works: dict[str, Work] = {name: gather(read, order) for name, read in reads.items()}
                works[LIBRARY] = gather(library, order[:SLOW_READS])
                works["memory"] = gather(lambda n: (records[n],), order)
                found = setup.measure(works)
            reading = partial(row, setup=described, limit=found["memory"], limit_name=message("copying the same bytes"))
            for name in (*reads, LIBRARY):
                title = message("{name}, reading, {threads}", name=name, threads=thread_count(threads))
                yield reading(found[name], name=title, ours=name in reads)
    shutil.rmtree(folder)


def _write(write: Writer, folder: Path, records: U8) -> Work:
    numbers = count()

    def clear() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()

    return Work(run=lambda: write(records, folder / str(next(numbers))), items=len(records), prepare=clear)


def _write_shard(store: Store, layout: RecordLayout, records: U8, path: Path) -> None:
    writer = open_writer(store, path, layout, len(records))
    for record in records:
        writer.append(record)
    writer.close()


def _write_file(records: U8, path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, records.nbytes)  # reserved first, they are written in a sixth less time
        for record in records:
            file.write(record.data)
        os.fsync(file.fileno())


def _open(stack: ExitStack, store: Store, folder: Path, layout: RecordLayout, records: U8) -> Read:
    """Write the records to shards, and open these."""
    readers = []
    for number, at in enumerate(range(0, len(records), SHARD_SAMPLES)):
        path, part = folder / shard_name(number, store), records[at : at + SHARD_SAMPLES]
        _write_shard(store, layout, part, path)
        readers.append(open_reader(store, path, layout, len(part)))
        stack.callback(readers[-1].close)
    return lambda n: readers[n // SHARD_SAMPLES].fields(n % SHARD_SAMPLES)


def _open_library(folder: Path) -> Read:
    """Open the Zarr shards with zarr-python, which may limit how many threads it serves at a time."""
    groups = [zarr.open_group(str(path), mode="r") for path in sorted(folder.glob("*.zarr"))]
    arrays: list[list[Any]] = [[group[array] for array in DIMENSIONS] for group in groups]

    def read(n: int) -> tuple[U8, ...]:
        return tuple(np.asarray(array[n % SHARD_SAMPLES]).reshape(-1) for array in arrays[n // SHARD_SAMPLES])

    return read


def _gather(pool: ThreadPoolExecutor, threads: int, read: Read, order: list[int], ring: U8) -> Work:
    """Copy records into the rows of a ring, as a loader does; each thread takes its share."""

    def work(thread: int) -> None:
        for number in range(thread, len(order), threads):
            row, at = ring[number % len(ring)], 0
            for piece in read(order[number]):
                row[at : at + piece.size] = piece
                at += piece.size

    return Work(run=each(pool, work, range(threads)), items=len(order))


BLOCK = 1 << 18
"""Bytes read at a time: no other size is faster."""


def verify_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Bytes per second of checking every shard of a cache, the page cache warm."""
    stores: dict[str, Store] = {"lmdb raw": "lmdb", "zarr raw": "zarr"}
    shard_samples = -(-len(material.split.rows) // (4 * setup.threads))  # a few shards per thread, as in a large cache
    works: dict[str, Work] = {}
    with thread_pool(setup.threads) as pool:
        for name, store in stores.items():
            root = material.folder / "verified" / name
            spec = CacheSpec(side=setup.side, store=store, shard_samples=shard_samples)
            build_cache(material.build_config(root, spec))
            with CacheReader(root, "train") as reader:
                size = reader.index.bytes
                files = [file for info in reader.info.shards for file in shard_files(root / "train" / info.name)]
            works[name] = Work(run=partial(_verify, root, setup.threads), items=size)
            works[f"{name} read"] = Work(run=each(pool, partial(read_through, block=BLOCK), files), items=size)
        found = setup.measure(works)
    shutil.rmtree(material.folder / "verified")
    rates = {name: rate.each(lambda value: value / 1e9) for name, rate in found.items()}
    described = joined(", ", [material.photos_name, message("side {side}", side=setup.side), setup.parallel])
    row = partial(Row.measured, suite="verify", setup=described, unit="GB/s")
    reading = message("reading the same files, {threads} threads", threads=setup.threads)
    for name in stores:
        yield row(rates[name], name=name, limit=rates[f"{name} read"], limit_name=reading)


def _verify(root: Path, threads: int) -> None:
    with CacheReader(root, "train") as reader:
        problems = list(check_split(reader, threads=threads))
    assert not problems, problems
