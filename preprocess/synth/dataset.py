"""A procedural people dataset in the COCO layout: posed figures in scenes, with masks that match the pixels."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cache.atomic import write_atomically
from cache.machine import processors
from cache.messages import UserError
from preprocess.check.structure import SYNTH_MARKER
from preprocess.image import opencv_threads
from preprocess.synth.figure import KEYPOINTS
from preprocess.synth.scene import Scene, Stage

_FORMAT = "maskcache-synth-1"
_SPLITS = ("train2017", "val2017")
_JPEG_QUALITY = 92  # looks like a photo's
_SKELETON = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10],
             [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7]]  # fmt: skip


class SynthError(UserError):
    """A synthetic dataset can't be made as asked."""


@dataclass(frozen=True, kw_only=True)
class SynthConfig:
    """What to draw. Image k is a pure function of (seed, k) and the sizes and shares below, whatever `images` is."""

    images: int = 400  # train and val together
    val_fraction: float = 0.15  # the last images, at least one when there are two
    seed: int = 0
    long_side: tuple[int, int] = (320, 480)  # pixels, drawn uniformly, both ends included
    empty_share: float = 0.12  # of the images, without a person
    crowd_share: float = 0.07  # of the images, with a crowd region

    def __post_init__(self) -> None:
        if self.images < 1:
            raise SynthError("images={images} is below 1; ask for at least one image", images=self.images)
        if self.seed < 0:
            raise SynthError("seed={seed} is negative; use 0 or more", seed=self.seed)
        assert 0 <= self.val_fraction < 1, self.val_fraction
        assert 64 <= self.long_side[0] <= self.long_side[1] <= 4096, self.long_side
        assert min(self.empty_share, self.crowd_share) >= 0, (self.empty_share, self.crowd_share)
        assert self.empty_share + self.crowd_share <= 1, (self.empty_share, self.crowd_share)

    @property
    def val_images(self) -> int:
        """How many of the images, the last ones, are for validation."""
        wanted = round(self.images * self.val_fraction)
        return min(max(wanted, 1), self.images - 1) if self.val_fraction > 0 else 0


@dataclass(frozen=True, kw_only=True)
class SynthReport:
    """What `make_dataset` wrote. `person_fraction` is the mean share of person pixels without crowds."""

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
    root: Path, config: SynthConfig, progress: Callable[[int, int], None] | None = None, *, workers: int | None = None
) -> SynthReport:
    """Write a dataset in the COCO layout under `root`, replacing an earlier one that this function made there.

    The annotation files are written last: without them the dataset is incomplete. The bytes do not depend on the number
    of threads, `workers`; None takes one per core, up to four. `progress` is called with the number of images done and
    of all, from the calling thread. Raises `SynthError`: `root` holds something else.
    """
    started = time.perf_counter()
    _claim(root, config)
    splits = ["train2017"] * (config.images - config.val_images) + ["val2017"] * config.val_images
    content = {split: empty_document(f"Procedural people, seed {config.seed}", _FORMAT) for split in _SPLITS}
    fractions, empty, size = 0.0, 0, 0
    # The images are the unit of parallel work.
    with opencv_threads(1), ThreadPoolExecutor(workers or min(4, processors())) as pool:
        try:
            folders = [root / split for split in splits]
            results = pool.map(_write_image, folders, range(len(splits)), itertools.repeat(config))
            for done, (split, result) in enumerate(zip(splits, results, strict=True), 1):
                record, annotations, file_size = result
                content[split]["images"].append(record)
                content[split]["annotations"] += annotations
                covered = sum(annotation["area"] for annotation in annotations if not annotation["iscrowd"])
                fractions += covered / (record["height"] * record["width"])
                size, empty = size + file_size, empty + (not annotations)
                if progress is not None:
                    progress(done, len(splits))
        finally:
            pool.shutdown(cancel_futures=True)
    for split, document in content.items():
        data = json.dumps(document, separators=(",", ":")).encode()
        write_atomically(root / "annotations" / f"person_keypoints_{split}.json", data)
        size += len(data)
    crowd_flags = [annotation["iscrowd"] for document in content.values() for annotation in document["annotations"]]
    return SynthReport(
        root=root,
        train_images=config.images - config.val_images,
        val_images=config.val_images,
        persons=crowd_flags.count(0),
        crowds=crowd_flags.count(1),
        empty_images=empty,
        person_fraction=fractions / config.images,
        bytes_written=size,
        seconds=time.perf_counter() - started,
    )


def _claim(root: Path, config: SynthConfig) -> None:
    """Make `root` an empty, marked dataset; annotations and images of an earlier one are removed."""
    marker, folders = root / SYNTH_MARKER, [root / name for name in ("annotations", *_SPLITS)]
    if root.exists() and not root.is_dir():
        raise SynthError("{root} is a file; name a directory for the dataset", root=root)
    if root.is_dir() and any(root.iterdir()):
        try:
            ours = json.loads(marker.read_text(encoding="utf-8"))["format"] == _FORMAT
        except (OSError, ValueError, KeyError, TypeError):
            ours = False
        if not ours:
            raise SynthError(
                "{root} is not empty and no synthetic dataset (its {marker} is missing or says another format than "
                "{format}); nothing was touched: choose a new or an empty directory",
                root=root,
                marker=SYNTH_MARKER,
                format=_FORMAT,
            )
        # The annotations are removed first: from here on the old dataset is incomplete.
        for folder in folders:
            if folder.exists():
                shutil.rmtree(folder)
    # The marker comes first: the next run recognises the folder of an interrupted one.
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text(json.dumps({"format": _FORMAT, "config": asdict(config)}, indent=1) + "\n", encoding="utf-8")
    for folder in folders:
        folder.mkdir()


def _write_image(folder: Path, index: int, config: SynthConfig) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    """Render and write one image; returns its record, annotations and file size."""
    scene = render(index, config)
    name = f"{index + 1:012d}.jpg"
    bgr = cv2.cvtColor(scene.image, cv2.COLOR_RGB2BGR)
    data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
    (folder / name).write_bytes(data)
    return *_describe(scene, index + 1, name), len(data)


def render(index: int, config: SynthConfig) -> Scene:
    """Draw image `index` (from 0). A pure function: the same arguments give the same bytes on the same OpenCV."""
    rng = np.random.default_rng([config.seed, index])
    long_side = int(rng.integers(config.long_side[0], config.long_side[1] + 1))
    short_side = round(long_side * rng.uniform(0.62, 1.0))
    height, width = (short_side, long_side) if rng.random() < 0.62 else (long_side, short_side)
    stage = Stage(rng, height, width)
    rest = 1 - config.empty_share - config.crowd_share
    shares = [config.empty_share, config.crowd_share, 0.48 * rest, 0.43 * rest, 0.09 * rest]
    stage.populate(str(rng.choice(("empty", "crowd", "close", "group", "few"), p=shares)))
    return stage.photograph()


def empty_document(description: str, version: str) -> dict[str, Any]:
    """COCO's document with the person category, without images and annotations."""
    info = {"description": description, "version": version, "year": 2017, "contributor": "maskcache"}
    person = {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(KEYPOINTS), "skeleton": _SKELETON}
    return {
        "info": {**info, "url": "", "date_created": ""},
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": [],
        "annotations": [],
        "categories": [person],
    }


def _describe(scene: Scene, image_id: int, file_name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """COCO's record of one image, and its annotations: the persons, then the crowd.

    A person that is too small for a polygon is left out.
    """
    height, width = scene.image.shape[:2]
    size = {"height": height, "width": width}
    record = {"license": 1, "file_name": file_name, **size, "date_captured": "", "id": image_id}
    annotations: list[dict[str, Any]] = []
    for person in scene.persons:
        polygons = trace(person.mask)
        if polygons:
            annotations.append(_annotation(image_id, len(annotations), person.mask, polygons, person.keypoints, 0))
    if scene.crowd is not None:
        counts = {"counts": run_lengths(scene.crowd), "size": [height, width]}
        annotations.append(_annotation(image_id, len(annotations), scene.crowd, counts, np.zeros((17, 3), np.int64), 1))
    return record, annotations


def _annotation(
    image_id: int, number: int, mask: NDArray[np.bool_], segmentation: Any, keypoints: NDArray[np.int64], crowd: int
) -> dict[str, Any]:
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    x, y = int(columns[0]), int(rows[0])
    return {
        "segmentation": segmentation,
        "num_keypoints": int((keypoints[:, 2] > 0).sum()),
        "area": int(mask.sum()),
        "iscrowd": crowd,
        "keypoints": keypoints.ravel().tolist(),
        "image_id": image_id,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "category_id": 1,
        "id": image_id * 100 + number,  # at most nine people and a crowd in an image
    }


def trace(mask: NDArray[np.bool_]) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...] around a mask (H, W), along the edges of its pixels; pixel i spans [i, i + 1).

    A mask with a hole is cut in two through the hole. Specks of fewer than three pixels are left out.
    """
    # Contours run through pixel centres. Doubling the mask and rounding odd coordinates up puts them on pixel edges.
    double = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    contours, hierarchy = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    polygons: list[list[float]] = []
    for number, contour in enumerate(contours):
        if hierarchy[0][number][3] >= 0:  # a hole, which both parts have at their border
            x, _, width, _ = cv2.boundingRect(contour)
            left = np.arange(mask.shape[1]) < (x + width // 2) // 2
            return trace(mask & left) + trace(mask & ~left)
        edges = ((contour[:, 0] + 1) // 2).astype(np.int32)
        area = abs(cv2.contourArea(edges))
        # Small shapes keep every step of their outline; large ones may move by half a pixel.
        corners = cv2.approxPolyDP(edges, 0.3 if area < 1500 else 0.75, True)
        if area >= 3 and len(corners) >= 3:
            polygons.append([float(value) for value in corners.ravel()])
    return polygons


def run_lengths(mask: NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed RLE of a mask (H, W): run lengths in column order, zeros first."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return [int(run) for run in np.diff(np.concatenate([[0], edges, [mask.size]]))]
