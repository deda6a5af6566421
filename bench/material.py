"""The data that suites work on: a dataset, its photos in memory, a cache. Each is made when it is first needed."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from bench.config import Setup
from cache.atomic import write_atomically
from cache.choices import Codec
from cache.index import REJECTED_NAME, SAMPLES_NAME, CacheIndex, ShardInfo, SplitInfo, encode_table
from cache.messages import message
from cache.reader import CacheReader
from cache.record import RecordLayout
from cache.shards import describe, shard_name, write_shard
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache
from preprocess.build.plan import Split, read_split
from preprocess.dataset import Location
from preprocess.synth.dataset import SynthConfig, make_dataset

PHOTO_SIDE = (560, 640)
"""Pixels of the long side of drawn photos, near COCO's."""

LEAST_BATCHES = 4
"""Least batches in a cache that is made of few photos."""


class Material:
    """Dataset and cache of a `Setup`; what has to be made lies in `folder`."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self._setup, self.folder = setup, folder

    @property
    def drawn(self) -> bool:
        """Whether the photos are synthetic."""
        return self._setup.config.coco is None

    @property
    def photos_name(self) -> str:
        """The photos in words, as rows give them."""
        photos = len(self.split.rows)
        return message("{count} drawn photos", count=photos) if self.drawn else message("{count} photos", count=photos)

    @cached_property
    def coco(self) -> Location:
        """The dataset."""
        if self._setup.config.coco:
            return self._setup.config.coco
        root = self.folder / "coco"
        config = SynthConfig(images=self._setup.photos, val_fraction=0, long_side=PHOTO_SIDE, empty_share=0)
        make_dataset(root, config, workers=self._setup.threads)
        return root

    @property
    def spec(self) -> CacheSpec:
        """Which photos of the dataset are taken, and what of their annotations."""
        config = self._setup.config
        return CacheSpec(side=self._setup.side, limit=self._setup.photos, category=config.category)

    @cached_property
    def split(self) -> Split:
        """The photos with persons: at most `Setup.photos`, evenly over the split."""
        return read_split(self.coco, "train", self.spec)

    @cached_property
    def paths(self) -> list[Path]:
        """The photos' files."""
        return [Path(self.split.photo(row)) for row in self.split.rows]

    @cached_property
    def files(self) -> list[bytes]:
        """The photos' bytes."""
        return [path.read_bytes() for path in self.paths]

    @cached_property
    def cache(self) -> Path:
        """The cache: the one given, else one of raw pixels in LMDB, repeated up to `Setup.megabytes`."""
        size = RecordLayout.of(CacheSpec(side=self._setup.side)).raw_bytes
        return self._setup.config.cache or self._make_cache("raw", self._setup.megabytes * 10**6 // size)

    def cache_of(self, codec: Codec) -> Path:
        """A cache of raw pixels, or of JPEGs: `cache` if it is one, else a small one that is made of the photos."""
        if CacheIndex.load(self.cache).spec.codec == codec:
            return self.cache
        return self._make_cache(codec, LEAST_BATCHES * self._setup.batch_size)

    def _make_cache(self, codec: Codec, samples: int) -> Path:
        """A cache of the photos, repeated up to so many samples, in a folder named by the codec."""
        small, large = self.folder / f"small-{codec}", self.folder / codec
        if not large.exists():
            build_cache(self.build_config(small, CacheSpec(side=self._setup.side, codec=codec)))
            repeat_cache(small, large, max(samples, CacheIndex.load(small).splits["train"].samples))
            shutil.rmtree(small)
        return large

    @cached_property
    def cache_name(self) -> str:
        """The cache in words, as rows give it."""
        samples = CacheIndex.load(self.cache).splits["train"].samples
        if self._setup.config.cache:
            return message("{samples:,} samples", samples=samples)
        return message("{samples:,} samples of {photos}", samples=samples, photos=self.photos_name)

    def build_config(self, out: Path, spec: CacheSpec) -> BuildConfig:
        """How to build a cache from the photos."""
        spec = dataclasses.replace(spec, limit=self._setup.photos, category=self.spec.category)
        return BuildConfig(coco=self.coco, out=out, spec=spec, splits=("train",), workers=self._setup.threads)


@contextmanager
def open_material(setup: Setup) -> Iterator[Material]:
    """Material whose folder is removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="maskcache-bench-") as folder:
        yield Material(setup, Path(folder))


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
