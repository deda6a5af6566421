"""The baselines: masks by pycocotools and OpenCV, and a DataLoader that decodes and draws samples in every epoch."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from pycocotools.coco import COCO
from torch.utils.data import DataLoader, Dataset

from cache.arrays import I32, U8
from preprocess.build.plan import Split
from preprocess.image import FitBox, fit_box, read_rgb
from preprocess.raster import POLYGON

Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class CocoMasks:
    """Both planes of the images of a split, drawn by pycocotools: an `annToMask` for each annotation."""

    def __init__(self, split: Split, categories: Sequence[str] = ("person",)) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
            self._coco = COCO(str(split.annotations))
        person = self._coco.getCatIds(catNms=list(categories))
        ids = split.table.image_id[split.rows].tolist()
        self._annotations = [self._coco.loadAnns(self._coco.getAnnIds(imgIds=[image], catIds=person)) for image in ids]
        self._shapes = image_shapes(split)

    def draw(self, number: int) -> tuple[U8, U8]:
        """The planes `person` and `ignore` of an image, `(H, W)` uint8 of 0 and 1."""
        person, ignore = np.zeros(self._shapes[number], np.uint8), np.zeros(self._shapes[number], np.uint8)
        for annotation in self._annotations[number]:
            plane = ignore if annotation["iscrowd"] else person
            plane |= self._coco.annToMask(annotation)
        if any(annotation["iscrowd"] for annotation in self._annotations[number]):
            ignore &= 1 - person
        return person, ignore


class PolygonFills:
    """An image's polygons by `cv2.fillPoly`: at whole pixels, so nearly but not exactly what pycocotools draws.

    The points are rounded beforehand. Run-length codes, which OpenCV cannot draw, are left out.
    """

    def __init__(self, split: Split) -> None:
        table = split.table
        self._polygons: list[list[I32]] = []
        self._shapes = image_shapes(split)
        for row in split.rows:
            parts = range(*table.part_start[table.first[[row, row + 1]]])
            spans = [(table.start[part], 2 * table.length[part]) for part in parts if table.kind[part] == POLYGON]
            points = [table.xy[at : at + count].reshape(-1, 2) for at, count in spans]
            self._polygons.append([each.round().astype(np.int32) for each in points])

    def draw(self, number: int) -> U8:
        """All polygons of an image in one plane, `(H, W)` uint8 of 0 and 1."""
        mask = np.zeros(self._shapes[number], np.uint8)
        for polygon in self._polygons[number]:  # one by one: together, what two of them cover would be left out
            cv2.fillPoly(mask, [polygon], 1)
        return mask


def image_shapes(split: Split) -> list[tuple[int, int]]:
    """Heights and widths of the images of a split."""
    height, width = split.table.height[split.rows], split.table.width[split.rows]
    return list(zip(height.tolist(), width.tolist(), strict=True))


class OnTheFly(Dataset[Sample]):
    """Decodes, draws and resizes a photo whenever it is asked for: `samples` photos, repeated if there are fewer."""

    def __init__(self, paths: list[Path], masks: CocoMasks, side: int, samples: int) -> None:
        self._paths, self._masks, self._side, self._samples = paths, masks, side, samples

    def __len__(self) -> int:
        return self._samples

    def __getitem__(self, number: int) -> Sample:
        """The image `(3, S, S)` and the two planes `(1, S, S)`, uint8, as a loader's batch has them."""
        number %= len(self._paths)
        pixels, side = read_rgb(self._paths[number]), self._side
        box = fit_box(pixels.shape[0], pixels.shape[1], side, "letterbox")
        person, ignore = self._masks.draw(number)
        return (
            torch.from_numpy(_fit(pixels, box, side, padding=0)).permute(2, 0, 1),
            torch.from_numpy(_fit(person, box, side, padding=0))[None],
            torch.from_numpy(_fit(ignore, box, side, padding=1))[None],
        )


def _fit(picture: U8, box: FitBox, side: int, padding: int) -> U8:
    """Resize a photo, or a plane of 0 and 1, into its box of a padded square, by OpenCV alone."""
    height, width = picture.shape[:2]
    square = np.full((side, side, *picture.shape[2:]), padding, np.uint8)
    if picture.ndim == 2:
        square[box.slices] = cv2.resize(255 * picture, box[2:], interpolation=cv2.INTER_AREA) >= 128
    else:
        shrinks = box.width <= width and box.height <= height
        square[box.slices] = cv2.resize(picture, box[2:], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return square


def plain_loader(dataset: OnTheFly, batch_size: int, workers: int) -> DataLoader[Sample]:
    """A shuffling DataLoader with persistent worker processes, which end when it is deleted."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        drop_last=True,
        worker_init_fn=_use_one_thread,
    )


def _use_one_thread(_worker: int) -> None:
    cv2.setNumThreads(1)  # the workers are the parallelism
