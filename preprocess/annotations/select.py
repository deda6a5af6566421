"""What follows from an annotation table: which images a named rule selects, and a digest of an image's annotations."""

from __future__ import annotations

from typing import get_args

import numpy as np

from cache.arrays import I64, U8, U64, Flags
from cache.choices import ImageRule
from cache.kernel import kernel
from preprocess.annotations.table import PersonTable
from preprocess.raster import POLYGON

_MULTIPLIER = np.uint64(0xBF58476D1CE4E5B9)  # of splitmix64's finaliser (Steele, Lea, Flood 2014)
_SHIFT = np.uint64(29)


def select_images(table: PersonTable, rule: ImageRule) -> Flags:
    """`(I,)` whether each image counts under a rule.

    `person`: at least one person annotation (crowds count). `keypoints`: at least one person with a labelled keypoint.
    `keypoints10`: at least ten labelled keypoints in the image. `all`: every image. Annotations that cannot be drawn
    count, so that their images are rejected and not skipped.
    """
    if rule == "all":
        return np.ones(len(table), np.bool_)
    if rule == "person":
        mask: Flags = np.diff(table.first) > 0
        mask[[problem.image for problem in table.problems if problem.image >= 0]] = True
        return mask
    total = sum_per_image(table, table.keypoints)
    total[[*table.lost_keypoints]] += np.array([*table.lost_keypoints.values()], np.int64)
    return total >= (10 if rule == "keypoints10" else 1)


def rule_counts(table: PersonTable) -> dict[ImageRule, int]:
    """How many images each rule selects."""
    return {rule: int(select_images(table, rule).sum()) for rule in get_args(ImageRule)}


def sum_per_image(table: PersonTable, value_A: I64) -> I64:
    """The sums of a value of each annotation over the images: `(A,)` -> `(I,)`."""
    total = np.concatenate(([0], np.cumsum(value_A)))
    return np.asarray(total[table.first[1:]] - total[table.first[:-1]], np.int64)


def annotation_digests(table: PersonTable, rows: I64) -> U64:
    """`(N,)` digests of the images `rows` of a table: of their sizes, and of their annotations' crowd flags and shapes.

    Equal digests mean equal planes. 64 bits guard against accidents, not against intent.
    """
    out = np.empty(len(rows), np.uint64)
    annotations = table.first, table.iscrowd, table.part_start, table.kind, table.start, table.length
    elements = table.xy.view(np.uint64), table.counts.view(np.uint64)
    _digest_images(rows, table.height, table.width, *annotations, *elements, out)
    return out


@kernel
def _mix(state: np.uint64, word: np.uint64) -> np.uint64:
    state = (state ^ word) * _MULTIPLIER
    return state ^ (state >> _SHIFT)


@kernel
def _digest_images(
    rows: I64,
    height: I64,
    width: I64,
    first: I64,
    iscrowd: U8,
    part_start: I64,
    kind: U8,
    start: I64,
    length: I64,
    xy_bits: U64,
    counts: U64,
    out: U64,
) -> None:
    for number in range(len(rows)):
        row = rows[number]
        state = _mix(_mix(_MULTIPLIER, np.uint64(height[row])), np.uint64(width[row]))
        for annotation in range(first[row], first[row + 1]):
            parts = part_start[annotation + 1] - part_start[annotation]
            state = _mix(_mix(state, np.uint64(iscrowd[annotation])), np.uint64(parts))
            for part in range(part_start[annotation], part_start[annotation + 1]):
                at, words = start[part], length[part]
                state = _mix(_mix(state, np.uint64(kind[part])), np.uint64(words))
                elements = xy_bits[at : at + 2 * words] if kind[part] == POLYGON else counts[at : at + words]
                for word in elements:
                    state = _mix(state, word)
        out[number] = state
