"""Verifying a cache against reading its files and doing nothing with them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bench.ceilings import crew
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Work, measure_together
from cache.integrity import check_split
from cache.reader import CacheReader
from cache.spec import CacheSpec, Store
from cache.storage import shard_files
from preprocess.build import build_cache

CAT_BYTES = 1 << 30
"""About what one `cat` reads, some files several times, so that its start does not count."""

BLOCK = 1 << 18
"""Bytes read at a time: as fast as any."""

CAT = "cat FILES > /dev/null"


def verify_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Every shard of a cache, the page cache warm: in bytes of the shards a second."""
    stores: dict[str, Store] = {"lmdb raw": "lmdb", "zarr raw": "zarr"}
    shard_samples = -(-len(material.split.rows) // (4 * setup.threads))  # a few shards a thread, as a large cache has
    works: dict[str, Work] = {}
    with crew(setup.threads) as pool:
        for name, store in stores.items():
            root = material.folder / "verified" / name
            spec = CacheSpec(side=setup.side, store=store, shard_samples=shard_samples)
            build_cache(material.build_config(root, spec))
            with CacheReader(root, "train") as reader:
                size = reader.index.bytes
                files = [file for info in reader.info.shards for file in shard_files(root / "train" / info.name)]
            works[name] = _verify(root, size, setup.threads)
            works[f"{name} read"] = _read(pool, files, size)
            works[f"{name} {CAT}"] = _cat(files, size)
        found = measure_together(works, seconds=setup.seconds, rounds=setup.rounds)
    shutil.rmtree(material.folder / "verified")
    rates = {name: rate.each(lambda value: value / 1e9) for name, rate in found.items()}
    common: dict[str, Any] = {
        "suite": "verify",
        "setup": f"{material.photos_name}, side {setup.side}, {setup.threads} threads",
        "unit": "GB/s",
    }
    reading = f"reading the same files, {setup.threads} threads"
    for name in stores:
        yield Row.measured(rates[name], name=name, limit=rates[f"{name} read"], limit_name=reading, **common)
    for name in stores:
        cat = rates[f"{name} {CAT}"]
        yield Row.measured(rates[name], name=f"{name}, against cat", limit=cat, limit_name=CAT, **common)


def _verify(root: Path, size: int, threads: int) -> Work:
    def run() -> None:
        with CacheReader(root, "train") as reader:
            damages = list(check_split(reader, threads=threads))
        assert not damages, damages

    return Work(run=run, items=size)


def _read(pool: ThreadPoolExecutor, files: list[Path], size: int) -> Work:
    def read(path: Path) -> None:
        buffer = bytearray(BLOCK)
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass

    def run() -> None:
        for _ in pool.map(read, files):
            pass

    return Work(run=run, items=size)


def _cat(files: list[Path], size: int) -> Work:
    times = -(-CAT_BYTES // size)
    command = ["cat", *[str(file) for file in files] * times]
    return Work(run=lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True), items=size * times)
