"""A procedural people dataset in the COCO layout: posed figures in scenes, with masks that match the pixels."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from preprocess.drawing.coco_json import describe, empty_document
from preprocess.drawing.scene import Scene, Stage
from preprocess.structure import SYNTH_MARKER

_FORMAT = "maskcache-synth-1"


class SynthError(ValueError):
    """A synthetic dataset can't be made as asked."""


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What to draw. Image k is a pure function of (seed, k) and the sizes and shares below, whatever `images` is."""

    images: int = 400  # train and val together
    val_fraction: float = 0.15  # the last images, at least one when there are two
    seed: int = 0
    long_side: tuple[int, int] = (320, 480)  # pixels, drawn uniformly, both ends included
    aspect: tuple[float, float] = (0.62, 1.0)  # short side over long side
    empty_share: float = 0.12  # of the images, without a person
    crowd_share: float = 0.07  # of the images, with a crowd region
    jpeg_quality: int = 92

    def __post_init__(self) -> None:
        """Check each field against its limits."""
        if self.images < 1:
            raise SynthError(f"images={self.images} is below 1; ask for at least one image")
        if self.seed < 0:
            raise SynthError(f"seed={self.seed} is negative; use 0 or more")
        if not 0 <= self.val_fraction < 1:
            raise SynthError(f"val_fraction={self.val_fraction} is not in [0, 1); 0.15 keeps a seventh for validation")
        low, high = self.long_side
        if not 64 <= low <= high <= 4096:
            raise SynthError(
                f"long_side={self.long_side} is not an ordered pair within 64 to 4096 pixels; try (320, 480)"
            )
        if not 0.25 <= self.aspect[0] <= self.aspect[1] <= 1:
            raise SynthError(f"aspect={self.aspect} is not an ordered pair within 0.25 to 1; try (0.62, 1.0)")
        if min(self.empty_share, self.crowd_share) < 0 or self.empty_share + self.crowd_share > 1:
            raise SynthError(
                f"empty_share={self.empty_share} and crowd_share={self.crowd_share}: each must be at least 0 "
                "and their sum at most 1; try 0.12 and 0.07"
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise SynthError(f"jpeg_quality={self.jpeg_quality} is not in 1 to 100; 92 looks like a photo's")

    @property
    def val_images(self) -> int:
        """How many of the images, the last ones, are for validation."""
        wanted = round(self.images * self.val_fraction)
        return min(max(wanted, 1), self.images - 1) if self.val_fraction > 0 else 0


@dataclass(frozen=True, kw_only=True)
class SynthReport:
    """What `make_dataset` wrote. `person_fraction` is the mean share of person pixels, crowds left out."""

    root: Path
    train_images: int
    val_images: int
    persons: int
    crowds: int
    empty_images: int
    person_fraction: float
    bytes_written: int
    seconds: float


def make_dataset(
    root: Path, config: SynthConfig, progress: Callable[[int], None] | None = None, *, workers: int | None = None
) -> SynthReport:
    """Write a dataset in the COCO layout under `root`, and replace an earlier one that this function made there.

    The two annotation files come last, under temporary names that are then renamed: a folder without them is not whole.
    `progress(1)` is called after each image, from the calling thread. `workers` threads draw, by default one a core
    up to four; the bytes don't depend on it. Raises SynthError if `root` holds something else.
    """
    started = time.perf_counter()
    _claim(root, config)
    train_images = config.images - config.val_images
    names = ["train2017"] * train_images + ["val2017"] * config.val_images
    content = {
        split: empty_document(f"Procedural people, seed {config.seed}", _FORMAT) for split in ("train2017", "val2017")
    }
    fractions, empty, size = 0.0, 0, 0
    threads_before = cv2.getNumThreads()
    cv2.setNumThreads(1)  # the images are the unit of parallel work
    pool = ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1))
    try:
        jobs = [pool.submit(_write_image, root / split, index, config) for index, split in enumerate(names)]
        for split, job in zip(names, jobs, strict=True):
            record, annotations, fraction, file_size = job.result()
            content[split]["images"].append(record)
            content[split]["annotations"] += annotations
            fractions, size = fractions + fraction, size + file_size
            empty += not annotations
            if progress is not None:
                progress(1)
    finally:
        pool.shutdown(cancel_futures=True)
        cv2.setNumThreads(threads_before)
    files = {root / "annotations" / f"person_keypoints_{split}.json": data for split, data in content.items()}
    for path, data in files.items():
        with path.with_suffix(".tmp").open("w", encoding="utf-8") as stream:
            json.dump(data, stream, separators=(",", ":"))
            stream.flush()
            os.fsync(stream.fileno())
    for path in files:
        size += path.with_suffix(".tmp").stat().st_size
        path.with_suffix(".tmp").replace(path)
    everyone = [annotation["iscrowd"] for data in content.values() for annotation in data["annotations"]]
    return SynthReport(
        root=root,
        train_images=train_images,
        val_images=config.val_images,
        persons=everyone.count(0),
        crowds=everyone.count(1),
        empty_images=empty,
        person_fraction=fractions / config.images,
        bytes_written=size,
        seconds=time.perf_counter() - started,
    )


def render(index: int, config: SynthConfig) -> Scene:
    """Draw image `index` (from 0). A pure function: the same arguments give the same bytes on the same OpenCV."""
    rng = np.random.default_rng([config.seed, index])
    long_side = int(rng.integers(config.long_side[0], config.long_side[1] + 1))
    short_side = round(long_side * rng.uniform(*config.aspect))
    height, width = (short_side, long_side) if rng.random() < 0.62 else (long_side, short_side)
    stage = Stage(rng, height, width)
    kinds = ("empty", "crowd", "close", "group", "few")
    rest = 1 - config.empty_share - config.crowd_share
    kind = rng.choice(kinds, p=[config.empty_share, config.crowd_share, 0.48 * rest, 0.43 * rest, 0.09 * rest])
    stage.populate(str(kind))
    return stage.photograph()


def _write_image(
    folder: Path, index: int, config: SynthConfig
) -> tuple[dict[str, Any], list[dict[str, Any]], float, int]:
    """Render and write one image; its COCO record, its annotations, its share of person pixels, its bytes."""
    scene = render(index, config)
    name = f"{index + 1:012d}.jpg"
    done, data = cv2.imencode(
        ".jpg", cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, config.jpeg_quality]
    )
    assert done, name
    (folder / name).write_bytes(data.tobytes())
    record, annotations = describe(scene, index + 1, name)
    covered = sum(annotation["area"] for annotation in annotations if not annotation["iscrowd"])
    return record, annotations, covered / (record["height"] * record["width"]), len(data)


def _claim(root: Path, config: SynthConfig) -> None:
    """Make `root` an empty dataset of ours: marked, without annotations, without the images of an earlier one."""
    marker = root / SYNTH_MARKER
    if root.exists() and not root.is_dir():
        raise SynthError(f"{root} is a file; name a directory for the dataset")
    if root.is_dir() and any(root.iterdir()):
        try:
            ours = json.loads(marker.read_text(encoding="utf-8"))["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise SynthError(
                f"{root} is not empty and no synthetic dataset (its {SYNTH_MARKER} is missing or says another format "
                f"than {_FORMAT}); nothing was touched: choose a new or an empty directory"
            )
        # The annotations go first: from here on the old dataset is not whole.
        for folder in ("annotations", "train2017", "val2017"):
            if (root / folder).exists():
                shutil.rmtree(root / folder)
    # The mark goes first: a run that is cut short leaves a folder that the next one knows as ours.
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"format": _FORMAT, "config": asdict(config)}, indent=1) + "\n", encoding="utf-8")
    for folder in ("annotations", "train2017", "val2017"):
        (root / folder).mkdir(exist_ok=True)
