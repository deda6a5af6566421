"""Which images count: named rules, each a mask over the images of a table."""

from __future__ import annotations

from typing import get_args

import numpy as np
import numpy.typing as npt

from cache.choices import ImageRule
from preprocess.coco import PersonTable

Mask = npt.NDArray[np.bool_]


def select_images(table: PersonTable, rule: ImageRule) -> Mask:
    """`(I,)` whether each image counts under a rule.

    `person`: at least one person annotation (crowds count). `keypoints`: at least one person with a labelled keypoint.
    `keypoints10`: at least ten labelled keypoints in the image. `all`: every image.
    """
    if rule == "all":
        return np.ones(len(table), np.bool_)
    if rule == "person":
        mask: Mask = np.diff(table.first) > 0
        # An image whose only person cannot be drawn has a person all the same: it is rejected, not skipped.
        mask[[problem.image for problem in table.problems if problem.image >= 0]] = True
        return mask
    return sum_per_image(table, table.keypoints) >= (10 if rule == "keypoints10" else 1)


def rule_counts(table: PersonTable) -> dict[ImageRule, int]:
    """How many images each rule selects."""
    return {rule: int(select_images(table, rule).sum()) for rule in get_args(ImageRule)}


def sum_per_image(table: PersonTable, value_A: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Sum a value of each annotation over each image: `(A,)` -> `(I,)`."""
    total = np.concatenate(([0], np.cumsum(value_A)))
    return np.asarray(total[table.first[1:]] - total[table.first[:-1]], np.int64)
