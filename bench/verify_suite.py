"""Verifying a cache against reading its files and doing nothing with them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.ceilings import each, read_through, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.report import Row
from bench.timing import Work
from cache.choices import Store
from cache.integrity import check_split
from cache.messages import message
from cache.reader import CacheReader
from cache.spec import CacheSpec
from cache.storage import shard_files
from preprocess.build import build_cache

CAT_BYTES = 1 << 30
"""About what one `cat` reads, some files several times, so that the start of the process does not count."""

BLOCK = 1 << 18
"""Bytes read at a time: no other size is faster."""

CAT = "cat FILES > /dev/null"


def verify_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Every shard of a cache, the page cache warm: bytes of the shards per second."""
    stores: dict[str, Store] = {message("lmdb raw"): "lmdb", message("zarr raw"): "zarr"}
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
            works[message("{name} read", name=name)] = Work(
                run=each(pool, partial(read_through, block=BLOCK), files), items=size
            )
            works[message("{name} {cat}", name=name, cat=CAT)] = _cat(files, size)
        found = setup.measure(works)
    shutil.rmtree(material.folder / "verified")
    rates = {name: rate.each(lambda value: value / 1e9) for name, rate in found.items()}
    described = message(
        "{photos_name}, side {side}, {threads} threads",
        photos_name=material.photos_name,
        side=setup.side,
        threads=setup.threads,
    )
    row = partial(Row.measured, suite="verify", setup=described, unit="GB/s")
    reading = message("reading the same files, {threads} threads", threads=setup.threads)
    for name in stores:
        yield row(rates[name], name=name, limit=rates[message("{name} read", name=name)], limit_name=reading)
    for name in stores:
        yield row(
            rates[name],
            name=message("{name}, against cat", name=name),
            limit=rates[message("{name} {cat}", name=name, cat=CAT)],
            limit_name=CAT,
        )


def _verify(root: Path, threads: int) -> None:
    with CacheReader(root, "train") as reader:
        problems = list(check_split(reader, threads=threads))
    assert not problems, problems


def _cat(files: list[Path], size: int) -> Work:
    times = -(-CAT_BYTES // size)
    command = ["cat", *[str(file) for file in files] * times]
    return Work(run=lambda: subprocess.run(command, stdout=subprocess.DEVNULL, check=True), items=size * times)
