"""Quality of a photo and the mask of its persons: four scores from 0 to 100, and their thresholds.

    coverage     share of the photo that the persons cover
    contrast     difference of the colours inside and outside, along the outline
    edge         how much of that difference lies at the outline itself: is the outline where the photo has its edge?
    resolution   width of the persons in pixels

Contrast, edge and the width are measured in the photo as a cache of side `SIDE` would have it, so the first two do not
depend on its size. `docs/quality.md` has the formulas, what to do about each score, and measurements.

Suffixes: H and W pixels, S `SIDE`, B bytes of 8 pixels, 3 RGB.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np
import numpy.typing as npt

from preprocess.errors import QualityError
from preprocess.geometry import FitBox, fit_box, place_image, place_plane
from preprocess.outline import outline_scores

U8 = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]

SIDE = 256
"""Side of the square in which contrast, edge and width are measured, pixels."""

WIDE = 0.25
"""Width of a person with full resolution, as a share of the side; a standing person then fills the height."""

NAMES = ("coverage", "contrast", "edge", "resolution")


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityThresholds:
    """Least value of each score that counts as good, 0 to 100."""

    coverage: float = 15.0
    contrast: float = 60.0
    edge: float = 50.0
    resolution: float = 70.0

    def __post_init__(self) -> None:
        for name in NAMES:
            value, usual = getattr(self, name), getattr(type(self), name)
            if not 0 <= value <= 100:  # nor NaN
                raise QualityError(
                    "the threshold {name}={value} is not between 0 and 100; {usual:g} is the usual one",
                    name=name,
                    value=value,
                    usual=usual,
                )

    def missed_by(self, scores: Mapping[str, float]) -> tuple[str, ...]:
        """Names of the scores below their thresholds."""
        return tuple(name for name in NAMES if scores[name] < getattr(self, name))


@dataclasses.dataclass(frozen=True, kw_only=True)
class QualityScores:
    """Scores of one photo and its mask, each 0 to 100 and never NaN."""

    coverage: float
    contrast: float
    edge: float
    resolution: float

    def to_dict(self) -> dict[str, float]:
        """Give the scores by name."""
        return {name: getattr(self, name) for name in NAMES}


def quality_scores(
    image_HW3: U8, person_HW: Plane, ignore_HW: Plane | None = None, *, side: int = 384
) -> QualityScores:
    """Score a photo and the mask of its persons. Contrast and edge are 0 where there is no outline.

    Args:
        image_HW3: `(H, W, 3)` uint8 RGB, at least one pixel.
        person_HW: `(H, W)`: not 0 where the persons are.
        ignore_HW: `(H, W)`: not 0 in pixels that count neither as person nor as surroundings.
        side: side of the square that the network sees, pixels.
    """
    assert image_HW3.shape == (*person_HW.shape, 3)
    assert person_HW.size
    mask_HW, counted = _as_bytes(person_HW), person_HW.size
    taken_HW = mask_HW
    if ignore_HW is not None:
        ignored_HW = _as_bytes(ignore_HW)
        taken_HW = mask_HW | ignored_HW
        mask_HW = mask_HW & (1 - ignored_HW)
        counted -= cv2.countNonZero(ignored_HW)
    persons = cv2.countNonZero(mask_HW)
    if not persons:
        return QualityScores(coverage=0.0, contrast=0.0, edge=0.0, resolution=0.0)
    height, width = mask_HW.shape
    box = fit_box(height, width, SIDE, "letterbox")
    image_SS3 = np.empty((SIDE, SIDE, 3), np.uint8)
    place_image(np.ascontiguousarray(image_HW3), box, image_SS3)
    person_SS = _placed(mask_HW, box, padding=0)
    contrast, edge = outline_scores(image_SS3, person_SS, 1 - _placed(taken_HW, box, padding=1))
    pixels = _width(person_SS) * max(height, width) / SIDE
    return QualityScores(
        coverage=100 * persons / counted,
        contrast=contrast,
        edge=edge,
        resolution=100 * min(1.0, pixels / (WIDE * side)),
    )


def _placed(plane_HW: U8, box: FitBox, *, padding: int) -> U8:
    """Fit a plane into the square; a pixel is set if at least half of it is."""
    bits_SB = np.empty((SIDE, SIDE // 8), np.uint8)
    place_plane(plane_HW, box, bits_SB, padding)
    return np.unpackbits(bits_SB, axis=1, bitorder="little")


def _width(person_HW: U8) -> float:
    """Diameter of the largest disc that lies within the persons and the photo, pixels."""
    framed_HW = cv2.copyMakeBorder(person_HW, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    distance_HW = cv2.distanceTransform(framed_HW, cv2.DIST_L2, cv2.DIST_MASK_5)
    return max(0.0, 2 * float(distance_HW.max()) - 1)


def _as_bytes(plane_HW: Plane) -> U8:
    return np.not_equal(plane_HW, 0).view(np.uint8)
