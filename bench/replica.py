"""Repeats the photos of a dataset, or the samples of a cache, up to any size."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from cache.atomic import write_atomically
from cache.index import REJECTED_NAME, SAMPLES_NAME, ShardInfo, SplitInfo, encode_table
from cache.reader import CacheReader
from cache.shards import describe, shard_name, write_shard
from preprocess.sources import Split


def repeat_dataset(split: Split, out: Path, images: int) -> None:
    """Write a COCO folder whose `train2017` has `images` images: those of a split in turn, under names of their own.

    The photos are links to the split's files.
    """
    document = json.loads(Path(split.annotations).read_bytes())
    entries = {image["id"]: image for image in document["images"]}
    owned: dict[int, list[dict[str, Any]]] = {}
    for annotation in document["annotations"]:
        owned.setdefault(annotation["image_id"], []).append(annotation)
    repeated: dict[str, Any] = {"images": [], "annotations": [], "categories": document["categories"]}
    (out / "annotations").mkdir(parents=True)
    (out / "train2017").mkdir()
    for number in range(images):
        row = split.rows[number % len(split.rows)]
        image = entries[int(split.table.image_id[row])]
        name = f"{number:012d}{Path(image['file_name']).suffix}"
        (out / "train2017" / name).symlink_to(Path(split.photo(row)).resolve())
        repeated["images"].append({**image, "id": number, "file_name": name})
        for annotation in owned.get(image["id"], []):
            repeated["annotations"].append({**annotation, "id": len(repeated["annotations"]), "image_id": number})
    (out / "annotations" / split.annotations.name.replace("val", "train")).write_text(json.dumps(repeated))


def repeat_cache(source: Path, out: Path, samples: int) -> None:
    """Write the split `train` of a cache again with `samples` samples, its own ones in turn.

    Each copy has bytes of its own on disk and in memory, so that processor caches gain nothing from the repetition.
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
