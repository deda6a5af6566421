"""A cache with its samples repeated: as many bytes as a large dataset has, without its photos."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from cache.atomic import write_atomically
from cache.index import REJECTED_NAME, SAMPLES_NAME, ShardInfo, SplitInfo, encode_table
from cache.reader import CacheReader
from cache.shards import describe, shard_name, write_shard


def repeat_cache(source: Path, out: Path, samples: int) -> None:
    """Write the split `train` of a cache again with `samples` samples, its own ones in turn.

    Each has bytes of its own on disk and in memory; no cache of a processor can tell that they repeat.
    """
    with CacheReader(source, "train") as reader:
        spec = reader.index.spec
        numbers = np.resize(np.arange(len(reader)), samples)
        table = reader.samples[numbers].copy()
        shards: list[ShardInfo] = []
        (out / "train").mkdir(parents=True)
        for at in range(0, samples, spec.shard_samples):
            chunk = numbers[at : at + spec.shard_samples]
            shard = len(shards)
            with write_shard(out / "train", shard, spec.store, reader.layout, len(chunk)) as writer:
                for number in chunk.tolist():
                    writer.append(reader.record(number))
            table["shard"][at : at + len(chunk)], table["row"][at : at + len(chunk)] = shard, np.arange(len(chunk))
            shards.append(describe(out / "train" / shard_name(shard, spec.store), len(chunk)))
        data, checksum = encode_table(table)
        write_atomically(out / "train" / SAMPLES_NAME, data)
        write_atomically(out / "train" / REJECTED_NAME, b"")
        split = SplitInfo(
            samples=samples, rejected=0, table_checksum=checksum, shards=tuple(shards), source=reader.info.source
        )
        dataclasses.replace(reader.index, splits={"train": split}).save(out)
