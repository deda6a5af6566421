"""Quality of a photo and the mask of its persons: four scores from 0 to 100, and their thresholds.

    coverage     share of the photo that the persons cover
    contrast     difference of the colours inside and outside, along the outline
    edge         how much of that difference lies at the outline itself: is the outline where the photo has its edge?
    resolution   width of the persons in pixels

Contrast, edge and the width are measured in the photo as a cache of side `SIDE` would have it, so the first two do not
depend on its size. `docs/quality.md` has the formulas, what to do about each score, and measurements.

Suffixes: H and W pixels, S `SIDE`, B bytes of 8 pixels, 3 RGB or Lab, P pixels of the outline.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np

from cache.arrays import F32, I32, I64, U8, Flags
from preprocess.errors import QualityError
from preprocess.image import FitBox, fit_box, place_image, place_plane

Plane = U8 | Flags

SIDE = 256
"""Side of the square in which contrast, edge and width are measured, pixels."""

WIDE = 0.25
"""Width of a person with full resolution, as a share of the side; a standing person then fills the height."""

NEAR, FAR = 2, 8
"""Radii in pixels of the small and the large window around a pixel of the outline."""

FULL_CONTRAST = 30.0
"""Difference in Lab (CIE 1976) from which the contrast is full: grey 128 and grey 208 differ by as much."""

NO_EDGE = 5.0
"""Difference in Lab in the large windows below which there is no edge to speak of."""

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
            values = {"name": name, "value": getattr(self, name), "usual": getattr(type(self), name)}
            if not 0 <= values["value"] <= 100:  # nor NaN
                raise QualityError(
                    "the threshold {name}={value} is not between 0 and 100; {usual:g} is the usual one", **values
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
        return dataclasses.asdict(self)


def quality_scores(
    image_HW3: U8, person_HW: Plane, ignore_HW: Plane | None = None, *, side: int = 384
) -> QualityScores:
    """Score a photo and the mask of its persons. Contrast and edge are 0 where there is no outline.

    `image_HW3` is uint8 RGB of at least one pixel; `person_HW` is not 0 where the persons are, `ignore_HW` in pixels
    that count neither as person nor as surroundings; `side` is that of the square that the network sees, pixels.
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
    contrast, edge = _outline_scores(image_SS3, person_SS, 1 - _placed(taken_HW, box, padding=1))
    pixels = _width(person_SS) * max(height, width) / SIDE
    return QualityScores(
        coverage=100 * persons / counted,
        contrast=contrast,
        edge=edge,
        resolution=100 * min(1.0, pixels / (WIDE * side)),
    )


def _as_bytes(plane_HW: Plane) -> U8:
    return np.not_equal(plane_HW, 0).view(np.uint8)


def _placed(plane_HW: U8, box: FitBox, *, padding: int) -> U8:
    """Fit a plane into the square; a pixel is set if at least half of it is."""
    bits_SB = np.empty((SIDE, SIDE // 8), np.uint8)
    place_plane(plane_HW, box, bits_SB, padding)
    return np.unpackbits(bits_SB, axis=1, bitorder="little")


def _width(person_SS: U8) -> float:
    """Diameter of the largest disc that lies within the persons and the photo, pixels."""
    framed = cv2.copyMakeBorder(person_SS, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    return max(0.0, 2 * float(cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_5).max()) - 1)


def _outline_scores(image_SS3: U8, person_SS: U8, surroundings_SS: U8) -> tuple[float, float]:
    """Contrast and edge, each 0 to 100: means over the outline, the persons' pixels that touch their surroundings.

    At each of them the mean colours of the persons and of the surroundings are taken in two windows around it, a large
    and a small one. `far` and `near` are the differences of the two, as vectors in Lab; then

        contrast = min(1, |far| / FULL_CONTRAST)
        edge     = near . far / (|far|^2 + NO_EDGE^2), within 0 and 1

    The edge is the share of the difference that is found within `NEAR` pixels already: 1 for a sharp edge under the
    outline, little for a blurred one, for an outline beside the edge, and in plain texture, where the two differences
    are unrelated. Sums over windows come from summed-area tables (F. Crow, Summed-area tables for texture mapping,
    1984). The planes hold 0 and 1; no pixel is in both, and some may be in neither. Without an outline, both scores
    are 0.
    """
    beside_SS = cv2.dilate(surroundings_SS, np.ones((3, 3), np.uint8), borderValue=0)
    rows_P, columns_P = np.nonzero(cv2.bitwise_and(person_SS, beside_SS))
    if not len(rows_P):
        return 0.0, 0.0
    # The range of all windows along each axis.
    part = tuple(slice(max(0, int(at_P.min()) - FAR), int(at_P.max()) + FAR + 1) for at_P in (rows_P, columns_P))
    rows_P, columns_P = rows_P - part[0].start, columns_P - part[1].start
    lab_HW3 = np.asarray(cv2.cvtColor(image_SS3[part], cv2.COLOR_RGB2LAB), np.uint8)
    person, surroundings = _sums(lab_HW3, person_SS[part]), _sums(lab_HW3, surroundings_SS[part])
    height, width = lab_HW3.shape[:2]

    def across(radius: int) -> F32:
        """Difference of the mean colours on both sides of the outline: `(P, 3)` Lab."""
        top_P, bottom_P = np.maximum(rows_P - radius, 0), np.minimum(rows_P + radius + 1, height)
        left_P, right_P = np.maximum(columns_P - radius, 0), np.minimum(columns_P + radius + 1, width)
        window = top_P, bottom_P, left_P, right_P
        return _means(person, *window) - _means(surroundings, *window)

    near_P3, far_P3 = across(NEAR), across(FAR)
    square_P = (far_P3 * far_P3).sum(1)
    contrast_P = np.sqrt(square_P) / FULL_CONTRAST
    edge_P = (near_P3 * far_P3).sum(1) / (square_P + NO_EDGE**2)
    return 100 * float(contrast_P.clip(0, 1).mean()), 100 * float(edge_P.clip(0, 1).mean())


def _sums(lab_HW3: U8, plane_HW: U8) -> I32:
    """Summed-area table of a plane's pixels: `(H + 1, W + 1, 4)`, Lab in bytes and 255 for each pixel."""
    lab_HW4 = cv2.cvtColor(lab_HW3, cv2.COLOR_RGB2RGBA)
    return np.asarray(cv2.integral(cv2.bitwise_and(lab_HW4, lab_HW4, mask=plane_HW)), np.int32)


def _means(sums: I32, top_P: I64, bottom_P: I64, left_P: I64, right_P: I64) -> F32:
    """Mean Lab of a plane in windows that each have at least one of its pixels: `(P, 3)`."""
    sum_P4 = sums[bottom_P, right_P] - sums[top_P, right_P] - sums[bottom_P, left_P] + sums[top_P, left_P]
    mean_P3 = sum_P4[:, :3] / (sum_P4[:, 3:] / np.float32(255))
    return np.asarray(mean_P3 * (100 / 255, 1, 1), np.float32)  # OpenCV has L in 255ths of its range
