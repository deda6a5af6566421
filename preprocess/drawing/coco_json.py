"""What COCO's JSON says of scenes: the document, the record of an image, and its annotations."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from preprocess.drawing.figure import KEYPOINTS
from preprocess.drawing.outline import run_lengths, trace
from preprocess.drawing.scene import Scene

_SKELETON = [[16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10],
             [9, 11], [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7]]  # fmt: skip


def empty_document(description: str, version: str) -> dict[str, Any]:
    """A document of the person category, without images and annotations."""
    return {
        "info": {
            "description": description,
            "version": version,
            "year": 2017,
            "contributor": "maskcache",
            "url": "",
            "date_created": "",
        },
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": [],
        "annotations": [],
        "categories": [
            {"supercategory": "person", "id": 1, "name": "person", "keypoints": list(KEYPOINTS), "skeleton": _SKELETON}
        ],
    }


def describe(scene: Scene, image_id: int, file_name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record of one image, and its annotations: of each person, then of the crowd.

    A person that is too small for a polygon gets none.
    """
    height, width = scene.image.shape[:2]
    record = {
        "license": 1,
        "file_name": file_name,
        "height": height,
        "width": width,
        "date_captured": "",
        "id": image_id,
    }
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
