"""What grows with the dataset, far past COCO: index and tables are measured, clusters and folders are simulated."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.config import Setup
from bench.material import Material
from bench.mixing import most_shards_at_a_time, pairs_of_one_shard
from bench.refetching import share_at_hand
from bench.report import Row
from bench.stragglers import Fleet, efficiency
from bench.timing import Work, measure, measure_together
from cache.index import (
    INDEX_NAME,
    SAMPLE_DTYPE,
    SAMPLES_NAME,
    CacheIndex,
    ShardInfo,
    SourceInfo,
    SplitInfo,
    encode_index,
    encode_table,
    load_table,
)
from cache.spec import CacheSpec
from loader.order import epoch_order, windowed_order
from preprocess.plan import cut

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

SAMPLES, SAMPLES_QUICK = 1_000_000, 100_000
"""Of the dataset that is thought of: COCO's train2017 has 64,115 photos with persons."""

WORKER_RATE = 300.0
"""Images/s of a worker: about what one processor makes of COCO's photos at side 384 (see the suite `preprocess`)."""

FLEETS = {
    "{workers} workers": Fleet(workers=1),
    "{workers} workers, one in 20 three times as slow": Fleet(workers=1, slow=0.05, slowness=3.0),
    "{workers} workers, one lost in 1,000 shards": Fleet(workers=1, losses=0.001, restart=60.0),
}
WORKERS = (16, 64, 256, 1024)
WINDOWS = (4, 16, 64)
BATCH_SIZE = 32
ROOM = (25, 50, 75, 90)
"""Percent of the shards that a folder holds."""

_EPOCHS = 4
_CLUSTERS = 5
"""Simulated, each with its own chance; the median counts."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Dataset:
    """One that is thought of: which shard each sample is in, and what is written of it."""

    shard_of: I64
    sizes: I64
    index: CacheIndex
    table: bytes


def scale_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Index, table, orders; then what chance makes of clusters, orders and folders."""
    dataset = _imagine(SAMPLES_QUICK if setup.config.quick else SAMPLES)
    described = f"{len(dataset.shard_of):,} samples in {len(dataset.sizes):,} shards"
    common = {"suite": "scale", "setup": described}
    yield from _files(setup, material.folder, dataset, common)
    yield from _orders(setup, dataset, common)
    yield from _clusters(dataset, common)
    yield from _folders(len(dataset.sizes), common)


def _imagine(samples: int) -> _Dataset:
    """A split of so many samples, cut as `preprocess` cuts it."""
    generator = np.random.default_rng(samples)
    ends = np.array(cut(range(samples), CacheSpec().shard_samples))
    sizes = np.diff(ends, prepend=0)
    shard_of = np.repeat(np.arange(len(sizes)), sizes)
    table = np.zeros(samples, SAMPLE_DTYPE)
    for column, kind in (("image_id", "<i8"), ("checksum", "<u8")):
        table[column] = generator.integers(0, 1 << 62, samples).astype(kind)
    table["shard"], table["row"] = shard_of, np.arange(samples) - np.repeat(ends - sizes, sizes)
    data, checksum = encode_table(table)
    digests = [generator.bytes(16).hex() for _ in range(2 * len(sizes))]
    shards = tuple(
        ShardInfo(name=f"{number:05d}.lmdb", rows=rows, bytes=479_232 * rows, checksum=digest, key=key)
        for number, (rows, digest, key) in enumerate(zip(sizes.tolist(), digests[::2], digests[1::2], strict=True))
    )
    split = SplitInfo(
        samples=samples,
        rejected=0,
        table_checksum=checksum,
        shards=shards,
        source=SourceInfo(annotations="instances.json", images=digests[0]),
    )
    index = CacheIndex(spec=CacheSpec(), fingerprint=2 * digests[0], tools={}, splits={"train": split})
    return _Dataset(shard_of, sizes, index, data)


def _files(setup: Setup, folder: Path, dataset: _Dataset, common: dict[str, Any]) -> Iterator[Row]:
    """What every process that opens the cache reads first."""
    root = folder / "scale"
    (root / "train").mkdir(parents=True)
    index, info = encode_index(dataset.index), dataset.index.splits["train"]
    dataset.index.save(root)
    (root / "train" / SAMPLES_NAME).write_bytes(dataset.table)
    files: dict[str, tuple[Path, bytes, Callable[[], object]]] = {
        "index": (root / INDEX_NAME, index, lambda: CacheIndex.load(root)),
        "sample table": (root / "train" / SAMPLES_NAME, dataset.table, lambda: load_table(root, "train", info)),
    }
    for name, (path, data, load) in files.items():
        yield Row(value=len(data) / 1e6, unit="MB", name=f"{name}: size", runs=1, **common)
        works = {"load": Work(run=load, items=1), "read": Work(run=path.read_bytes, items=1)}
        rates = measure_together(works, seconds=setup.seconds, rounds=setup.rounds)
        seconds = {work: rate.each(lambda value: 1 / value) for work, rate in rates.items()}
        # The index is text that is taken apart; only of the table it can be said how fast it could be at best.
        limit: dict[str, Any] = {} if name == "index" else {"limit": seconds["read"], "limit_name": "reading the file"}
        yield Row.measured(seconds["load"], name=f"{name}: opening", unit="s", **limit, **common)


def _orders(setup: Setup, dataset: _Dataset, common: dict[str, Any]) -> Iterator[Row]:
    """Orders of an epoch: how long they take, and how well they mix."""
    samples, shard_of = len(dataset.shard_of), dataset.shard_of
    orders: dict[str, Callable[[], I64]] = {"order, global": partial(epoch_order, samples, 0, 0)}
    for window in WINDOWS:
        orders[f"order, window {window}"] = partial(windowed_order, shard_of, 0, 0, window=window)
    for name, make in orders.items():
        rates = measure(Work(run=make, items=1), seconds=setup.seconds, rounds=setup.rounds)
        yield Row.measured(rates.each(lambda value: 1 / value), name=f"{name}: making", unit="s", **common)
        order = make()
        share = pairs_of_one_shard(order, shard_of, BATCH_SIZE)
        note = f"of the pairs of samples in a batch of {BATCH_SIZE}"
        yield Row(value=100 * share, unit="%", name=f"{name}: pairs of one shard", runs=1, note=note, **common)
        most = most_shards_at_a_time(order, shard_of)
        yield Row(value=most, unit="shards", name=f"{name}: needed at a time", runs=1, **common)


def _clusters(dataset: _Dataset, common: dict[str, Any]) -> Iterator[Row]:
    """What a cluster loses by waiting for its last workers."""
    seconds: F64 = dataset.sizes / WORKER_RATE
    for text, kind in FLEETS.items():
        for workers in WORKERS:
            fleet = dataclasses.replace(kind, workers=workers)
            found = 100 * np.array([efficiency(seconds, fleet, seed) for seed in range(_CLUSTERS)])
            yield Row(
                name=text.format(workers=f"{workers:,}"),
                value=float(np.median(found)),
                p10=float(found.min()),
                p90=float(found.max()),
                unit="%",
                kind="estimated",
                note=f"of the time of workers that make {WORKER_RATE:.0f} images/s; of {_CLUSTERS} simulations",
                **common,
            )


def _folders(shards: int, common: dict[str, Any]) -> Iterator[Row]:
    """What a folder for fetched shards saves from the second epoch on."""
    for percent in ROOM:
        share = share_at_hand(shards, shards * percent // 100, epochs=_EPOCHS)
        name = f"folder for {percent} % of the shards: at hand"
        note = "of the shards of an epoch; the longest unused goes first"
        yield Row(name=name, value=100 * share, unit="%", kind="estimated", note=note, **common)
