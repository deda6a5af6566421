"""What `batch` draws and prints: one batch as a picture, and where it came from."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2

from cache.arrays import U8
from cache.spec import CacheSpec
from console.language import _
from loader.batch import LoaderConfig
from loader.loader import open_loader
from loader.sheet import augmentation_gallery, contact_sheet
from preprocess.build.build import BuildConfig, build_cache
from preprocess.dataset import Location


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSummary:
    """One drawn batch."""

    source: str  # the cache or the dataset
    loader: str  # the backend, and why it was chosen
    shape: tuple[int, ...]  # NCHW
    image_ids: tuple[int, ...]
    person_fraction: float  # among the pixels that count
    ignore_fraction: float
    first_batch_seconds: float  # from the opening of the cache
    picture: str


def draw_batch(
    cache: Path, picture: Path, *, split: str, batch_size: int, augment: Any, loader: Any, seed: int
) -> BatchSummary:
    """Draw the first batch that a loader gives."""
    config = LoaderConfig(cache=cache, split=split, batch_size=batch_size, augment=augment, backend=loader, seed=seed)
    start = time.perf_counter()
    with open_loader(config) as batches:
        batch = next(iter(batches))
        seconds = time.perf_counter() - start
        counted = batch.ignore == 0
        _write(picture, contact_sheet(batch))
        return BatchSummary(
            source=str(cache),
            loader=str(batches.choice),
            shape=tuple(batch.image.shape),
            image_ids=tuple(batches.reader.samples["image_id"][batch.samples].tolist()),
            person_fraction=float((batch.person[counted] == 1).float().mean()) if counted.any() else 0.0,
            ignore_fraction=float((~counted).float().mean()),
            first_batch_seconds=seconds,
            picture=str(picture),
        )


def draw_gallery(cache: Path, picture: Path, *, split: str, batch_size: int, loader: Any, seed: int) -> None:
    """Draw what each augmentation level makes of the same samples."""
    config = LoaderConfig(cache=cache, split=split, batch_size=batch_size, backend=loader, seed=seed)
    _write(picture, augmentation_gallery(config))


def _write(picture: Path, sheet: U8) -> None:
    picture.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(picture), sheet[:, :, ::-1]):
        raise OSError(_("cannot write {path}; choose another --picture", path=picture))


def draw_dataset_batch(coco: Location, picture: Path, spec: CacheSpec, *, split: str, **options: Any) -> BatchSummary:
    """`draw_batch` for a dataset that has no cache yet: a small one is built of what a spec takes."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        build_cache(BuildConfig(coco=coco, out=cache, spec=spec, splits=(split,)))
        summary = draw_batch(cache, picture, split=split, **options)
    return dataclasses.replace(summary, source=str(coco))
