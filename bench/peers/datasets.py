"""What contestants read, made once and kept: samples as plain arrays, our caches of them, and libraries' datasets."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import simplejpeg

from bench.config import Setup
from bench.material import Material
from bench.peers.samples import ARRAYS, FOLDER
from bench.replica import repeat_cache
from bench.report import BenchError
from cache.index import CacheIndex
from cache.reader import CacheReader
from cache.record import RecordLayout
from cache.spec import CacheSpec
from preprocess.build import build_cache

GIGABYTE = 10**9

VERSION = 1
"""Of what is written; a change in a contestant's `write_dataset` is one."""

SPACE = 10
"""Times the size of a raw cache that all datasets take together."""


class Datasets:
    """A folder for the photos, side and number of records of a run.

    Args:
        root: where they all are kept.
        setup: side, photos.
        material: the photos.
        samples: records in each dataset: the photos in turn, each with bytes of its own.
    """

    def __init__(self, root: Path, setup: Setup, material: Material, samples: int) -> None:
        self._setup, self._material, self._samples = setup, material, samples
        self._small = {"raw": self._build(CacheSpec(side=setup.side))}
        sources = CacheIndex.load(self._small["raw"]).fingerprint
        self.folder = root / f"v{VERSION}-side{setup.side}-{samples}-{sources[:12]}"
        self.folder.mkdir(parents=True, exist_ok=True)

    def prepare(self) -> None:
        """Make what every run needs: the samples, and our caches.

        Raises:
            BenchError: the disk has no room for what is still to be written.
        """
        self._check_space()
        self.make(FOLDER, self._write_samples)
        self.make("cache-raw", lambda out: repeat_cache(self._small["raw"], out, self._samples))
        self.make("cache-jpeg", lambda out: repeat_cache(self._jpeg(), out, self._samples))
        self.make("cache-zarr", self._write_zarr)

    def make(self, name: str, write: Callable[[Path], object]) -> Path:
        """The folder of that name; `write` fills it where it is not there yet."""
        path, part = self.folder / name, self.folder / f"{name}.part"
        if not path.exists():
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            write(part)
            part.rename(path)
        return path

    def _check_space(self) -> None:
        needed = SPACE * self._samples * RecordLayout(self._setup.side, "raw").raw_bytes
        there = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        free = shutil.disk_usage(self.folder).free
        if there + free < needed:
            raise BenchError(
                f"{self.folder} needs {(needed - there) / GIGABYTE:.1f} GB, {free / GIGABYTE:.1f} GB are free; "
                "delete datasets of other runs beside it, or use another --peers-folder"
            )

    def _build(self, spec: CacheSpec) -> Path:
        """A cache with each photo once."""
        out = self._material.folder / f"peers-{spec.codec}-{spec.store}"
        build_cache(self._material.build_config(out, spec))
        return out

    def _jpeg(self) -> Path:
        if "jpeg" not in self._small:
            self._small["jpeg"] = self._build(CacheSpec(side=self._setup.side, codec="jpeg"))
        return self._small["jpeg"]

    def _write_zarr(self, out: Path) -> None:
        small = self._build(CacheSpec(side=self._setup.side, store="zarr"))
        repeat_cache(small, out, self._samples)
        shutil.rmtree(small)

    def _write_samples(self, out: Path) -> None:
        side = self._setup.side
        with CacheReader(self._small["raw"], "train") as raw, CacheReader(self._jpeg(), "train") as jpeg:
            fields = [raw.fields(number) for number in range(len(raw))]
            jpegs = [jpeg.fields(number).image for number in range(len(jpeg))]
            arrays = {
                "image": np.stack([field.image.reshape(side, side, 3) for field in fields]),
                "decoded": np.stack([simplejpeg.decode_jpeg(image, "RGB") for image in jpegs]),
                "person": np.stack([field.person for field in fields]),
                "ignore": np.stack([field.ignore for field in fields]),
                "jpeg": np.concatenate(jpegs),
                "jpeg_start": np.cumsum([0, *(image.size for image in jpegs)]),
            }
            assert tuple(arrays) == ARRAYS
            for name, array in arrays.items():
                np.save(out / f"{name}.npy", array)
