"""The data that suites work on: a dataset, its photos in memory, a cache. Each is made when it is first needed."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from bench.config import Setup
from bench.replica import repeat_cache
from cache.choices import Codec
from cache.index import CacheIndex
from cache.messages import message
from cache.record import RecordLayout
from cache.spec import CacheSpec
from preprocess.build import BuildConfig, build_cache
from preprocess.sources import Split, read_split
from preprocess.synth import SynthConfig, make_dataset

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
        return (
            message("{rows_count} drawn photos", rows_count=len(self.split.rows))
            if self.drawn
            else message("{rows_count} photos", rows_count=len(self.split.rows))
        )

    @cached_property
    def coco(self) -> Path:
        """The dataset."""
        if self._setup.config.coco:
            return self._setup.config.coco
        root = self.folder / "coco"
        config = SynthConfig(images=self._setup.photos, val_fraction=0, long_side=PHOTO_SIDE, empty_share=0)
        make_dataset(root, config, workers=self._setup.threads)
        return root

    @cached_property
    def split(self) -> Split:
        """The photos with persons: at most `Setup.photos`, evenly over the split."""
        return read_split(self.coco, "train", CacheSpec(side=self._setup.side, limit=self._setup.photos))

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
        index = CacheIndex.load(self.cache)
        built = "" if self._setup.config.cache else message(" of {photos_name}", photos_name=self.photos_name)
        return message("{samples:,} samples{built}", samples=index.splits["train"].samples, built=built)

    def build_config(self, out: Path, spec: CacheSpec) -> BuildConfig:
        """How to build a cache from the photos."""
        return BuildConfig(
            coco=self.coco,
            out=out,
            spec=dataclasses.replace(spec, limit=self._setup.photos),
            splits=("train",),
            workers=self._setup.threads,
        )


@contextmanager
def open_material(setup: Setup) -> Iterator[Material]:
    """Material whose folder is removed at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="maskcache-bench-") as folder:
        yield Material(setup, Path(folder))
