"""The usual way, to compare with: pycocotools, and a DataLoader that decodes and draws every sample in every epoch."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pycocotools.coco import COCO
from torch.utils.data import DataLoader, Dataset

from preprocess.coco import annotation_file
from preprocess.geometry import fit_box, place_image, place_plane
from preprocess.image import read_rgb
from preprocess.sources import SPLIT_FOLDERS, Split

U8 = npt.NDArray[np.uint8]
Sample = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class CocoMasks:
    """Both planes of the images of a split, drawn by pycocotools: an `annToMask` for each annotation."""

    def __init__(self, coco: Path, split: Split) -> None:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints how long it took
            self._coco = COCO(str(annotation_file(coco, SPLIT_FOLDERS[split.name])))
        person = self._coco.getCatIds(catNms=["person"])
        self._annotations: list[list[dict[str, Any]]] = []
        self._shapes: list[tuple[int, int]] = []
        for row in split.rows:
            ids = self._coco.getAnnIds(imgIds=[int(split.table.image_id[row])], catIds=person)
            self._annotations.append(self._coco.loadAnns(ids))
            self._shapes.append((int(split.table.height[row]), int(split.table.width[row])))

    def __len__(self) -> int:
        return len(self._shapes)

    def draw(self, number: int) -> tuple[U8, U8]:
        """The planes `person` and `ignore` of an image, `(H, W)` uint8 of 0 and 1."""
        person, ignore = np.zeros(self._shapes[number], np.uint8), np.zeros(self._shapes[number], np.uint8)
        for annotation in self._annotations[number]:
            plane = ignore if annotation["iscrowd"] else person
            plane |= self._coco.annToMask(annotation)
        if any(annotation["iscrowd"] for annotation in self._annotations[number]):
            ignore &= 1 - person
        return person, ignore


class OnTheFly(Dataset[Sample]):
    """Photos decoded, drawn and resized each time; `samples` of them, the first ones again after the last."""

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
            torch.from_numpy(place_image(pixels, box, side)).permute(2, 0, 1),
            torch.from_numpy(place_plane(person, box, side, padding=0))[None],
            torch.from_numpy(place_plane(ignore, box, side, padding=1))[None],
        )


def plain_loader(dataset: OnTheFly, batch_size: int, workers: int) -> DataLoader[Sample]:
    """A DataLoader in worker processes that stay; dropping it ends them."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=True,
        drop_last=True,
        worker_init_fn=_settle,
    )


def _settle(_worker: int) -> None:
    cv2.setNumThreads(1)  # the workers are the parallelism
