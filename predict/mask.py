"""From a photo to its mask: fitted into the network's square, predicted, brought to the photo's size, made an alpha.

`Finish` is what the command, the page and `maskcache.remove_background` share, wherever photos come from and go to.

`matte` runs the guided filter, which moves a mask's edges to the photo's where the network is in doubt: Kaiming He,
Jian Sun, Xiaoou Tang: "Guided image filtering", IEEE TPAMI 35(6), 2013, equations 19 to 21 (a colour guide). In
each window the mask is fitted as a linear function of the photo's colour; a pixel gets the mean of what the windows
around it say. Windows are cut off at the border of the photo. Where they are large, the functions are found in a
smaller photo and then used on all pixels: He, Sun: "Fast guided filter", arXiv 1505.00996, 2015.

Suffixes: N photos, H and W pixels, S side of the square, h and w pixels of its part that the photo fills, or of the
smaller photo, 3 RGB, 6 the upper triangle of a symmetric 3 x 3 matrix, 1 one channel; `_3`, `_6` and `_33` are lists of
planes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch

from cache.arrays import F32, U8, Array
from cache.choices import Fit, PredictKind
from predict.background import Background, estimate_foreground, remove_background
from predict.config import PredictError
from preprocess.image import FitBox, fit_box, place_image, restore_mask
from train.predictor import Predictor

Planes = Sequence[F32]

RADIUS, THICKNESS = 0.03, 2
"""The window's radius is this share of the photo's diagonal, as far as networks are wrong; at most this many times the
persons' area by the length of their outline, or small ones would vanish."""

RAMP = 0.6
"""The filter's values around a half, this many, become those between clear and opaque: soft only along the edge."""

DOUBT = 24
"""The filter says all where this times p (1 - p) is 1 or more: for probabilities p of 0.05 to 0.95."""

EPS = 1e-4
"""The variance of the colours (0 to 1) above which a contrast is an edge; with less, noise would speckle the mask."""

WINDOW = 12
"""The largest radius in pixels: with a larger window, the filter works on a smaller photo."""

STRIP = 256
"""Rows that are made at a time."""


class Square(NamedTuple):
    """A photo as the network sees it: `(S, S, 3)` uint8 RGB, and where in it the photo is."""

    pixels: U8
    box: FitBox


class Mask(NamedTuple):
    """Where the persons are."""

    alpha: U8  # `(H, W)`; 255 is wholly a person
    person: U8  # `(H, W)` of 0 and 1: where it is foreground, by the threshold

    @property
    def coverage(self) -> float:
        """Share of persons, in percent."""
        return 100 * int(np.count_nonzero(self.person)) / self.person.size


def fit_square(image_HW3: U8, side: int, fit: Fit) -> Square:
    """Lay a photo into a square as the cache does."""
    height, width = image_HW3.shape[:2]
    box = fit_box(height, width, side, fit)
    pixels_SS3 = np.empty((side, side, 3), np.uint8)
    place_image(image_HW3, box, pixels_SS3)
    return Square(pixels_SS3, box)


def find_persons(predictor: Predictor, squares: Sequence[Square]) -> list[F32]:
    """Predict photos in one batch: the probability of a person, `(S, S)` float32 for each."""
    if not squares:
        return []
    pixels_NSS3 = torch.from_numpy(np.stack([square.pixels for square in squares]))
    logits_N1SS = predictor(pixels_NSS3.to(predictor.device).permute(0, 3, 1, 2))
    return list(logits_N1SS.sigmoid()[:, 0].cpu().numpy())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finish:
    """What is made of a photo once the network has answered, see `PredictConfig`; `PredictError` for the threshold."""

    kind: PredictKind = "cutout"
    background: Background | None = None
    soft: bool = False
    hard: bool = False
    threshold: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise PredictError(
                "threshold={threshold} is not between 0 and 1; 0.5 is the usual one", threshold=self.threshold
            )

    def draw(self, probability_SS: F32, box: FitBox, image_HW3: U8) -> tuple[U8, Mask]:
        """The pixels of a result, `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, and its mask.

        The network's answer is float32 in 0 to 1; the photo is in its `box`. The result is of the size of `image_HW3`.
        """
        probability_HW = restore_mask(probability_SS, box, *image_HW3.shape[:2])
        opaque_HW = probability_HW if self.soft else matte(probability_HW, image_HW3, self.threshold)
        person_HW = (opaque_HW > (self.threshold if self.soft else 0.5)).view(np.uint8)
        alpha_HW = np.asarray(cv2.convertScaleAbs(person_HW if self.hard else opaque_HW, alpha=255), np.uint8)
        if self.kind == "mask":
            return alpha_HW, Mask(alpha_HW, person_HW)
        colours_HW3 = image_HW3 if self.soft or self.hard else estimate_foreground(image_HW3, alpha_HW)
        return remove_background(image_HW3, alpha_HW, self.background, colours_HW3), Mask(alpha_HW, person_HW)


def certainty(probability_hw: F32, threshold: float) -> float:
    """The IoU that the mask would have if the probabilities were right, in percent; 0 where nobody is found.

    The expected intersection is the sum of the probabilities in the mask; the expected union is the mask's area and the
    sum of the probabilities beside it. Networks are overconfident, so this is good for comparing photos and too high
    for a single one; `docs/quality.md` has how well it predicts the true IoU.

    Args:
        probability_hw: float32 in 0 to 1, at least one pixel.
        threshold: the probability above which a pixel is in the mask.
    """
    inside_hw = probability_hw > threshold
    persons = int(np.count_nonzero(inside_hw))
    if not persons:
        return 0.0
    common = float(probability_hw.sum(where=inside_hw, dtype=np.float64))
    beside = float(probability_hw.sum(dtype=np.float64)) - common
    return 100 * common / (persons + max(0.0, beside))


def matte(probability_HW: F32, image_HW3: U8, threshold: float) -> F32:
    """The alpha of a photo, 0 to 1: opaque inside, clear outside, soft only along the edge, which is the photo's.

    What is above the threshold is filtered with the photo as the guide, where the network is in doubt, and the middle
    of the filter's values is stretched. See docs/predict-results.md for how near that is to a true alpha.

    Args:
        probability_HW: `(H, W)` float32 in 0 to 1.
        image_HW3: `(H, W, 3)` uint8 RGB.
        threshold: the probability at which the edge is.
    """
    above_HW = probability_HW > threshold
    hard_HW, inside = above_HW.astype(np.float32), np.count_nonzero(above_HW)
    if inside in (0, above_HW.size):
        return hard_HW
    height, width = hard_HW.shape
    outline = sum(np.count_nonzero(np.diff(above_HW, axis=axis)) for axis in (0, 1))
    pixels = max(1, round(min(RADIUS * math.hypot(height, width), THICKNESS * inside / outline)))
    shrink = max(1.0, pixels / WINDOW)
    small = max(1, round(width / shrink)), max(1, round(height / shrink))
    guide_hw3, mask_hw = (cv2.resize(one, small, interpolation=cv2.INTER_AREA) for one in (image_HW3, hard_HW))
    slope_3, offset_hw = fit_lines(_split(guide_hw3), np.asarray(mask_hw, np.float32), min(pixels, WINDOW), EPS)
    # Of their full width and few rows: the rows between them are made when they are wanted.
    wide = [np.asarray(cv2.resize(plane_hw, (width, small[1])), np.float32) for plane_hw in (*slope_3, offset_hw)]
    for top in range(0, height, STRIP):
        rows = slice(top, min(top + STRIP, height))
        *slope_3, offset_HW = (_stretch(plane_hW, rows, height) for plane_hW in wide)
        filtered_HW = (_dot(slope_3, _split(image_HW3[rows])) + offset_HW).clip(0, 1)
        doubt_HW = (DOUBT * probability_HW[rows] * (1 - probability_HW[rows])).clip(0, 1)
        at_HW = hard_HW[rows] + doubt_HW * (filtered_HW - hard_HW[rows])
        at_HW = ((at_HW - np.float32(0.5)) / np.float32(RAMP) + np.float32(0.5)).clip(0, 1)
        hard_HW[rows] = at_HW * at_HW * (3 - 2 * at_HW)  # smooth at both ends
    return hard_HW


def fit_lines(guide_3: Planes, mask_HW: F32, radius: int, eps: float) -> tuple[Planes, F32]:
    """The filter itself: at each pixel the mask as a linear function of the colour, `sum of slopes * colour + offset`.

    Windows have `2 * radius + 1` pixels, colours are in 0 to 1. Gives the slopes of red, green and blue and the offset.
    """
    size = 2 * radius + 1, 2 * radius + 1

    def box(plane_HW: F32) -> F32:
        return np.asarray(cv2.boxFilter(plane_HW, -1, size, normalize=False, borderType=cv2.BORDER_CONSTANT))

    share_HW = np.reciprocal(box(np.ones_like(mask_HW)))  # of one pixel in its window

    def mean(plane_HW: F32) -> F32:
        return box(plane_HW) * share_HW

    # A shift of the colours changes nothing but the rounding of the variances, which are differences.
    shift_3 = [plane_HW.mean() for plane_HW in guide_3]
    guide_3 = [plane_HW - shift for plane_HW, shift in zip(guide_3, shift_3, strict=True)]
    mean_3, mean_HW = [mean(plane_HW) for plane_HW in guide_3], mean(mask_HW)
    covariance_3 = [mean(plane_HW * mask_HW) - of * mean_HW for plane_HW, of in zip(guide_3, mean_3, strict=True)]
    variance_6 = []  # of the colours in each window: the upper triangle by rows
    for one, other in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)):
        plane_HW = mean(guide_3[one] * guide_3[other]) - mean_3[one] * mean_3[other]
        variance_6.append(plane_HW + np.float32(eps) if one == other else plane_HW)
    slope_3 = _solve(variance_6, covariance_3)
    offset_HW, slope_3 = mean(mean_HW - _dot(slope_3, mean_3)), [mean(slope_HW) for slope_HW in slope_3]
    return slope_3, offset_HW - _dot(slope_3, shift_3)


def _split(image_HW3: Array) -> Planes:
    """Colours in 0 to 1, a plane each."""
    return [np.asarray(plane_HW, np.float32) / np.float32(255) for plane_HW in cv2.split(image_HW3)]


def _stretch(plane_hW: F32, rows: slice, height: int) -> F32:
    """Some rows of a plane that has `height` of them once it is stretched, linearly."""
    at = (np.arange(rows.start, rows.stop, dtype=np.float32) + np.float32(0.5)) * np.float32(len(plane_hW) / height)
    at = (at - np.float32(0.5)).clip(0, len(plane_hW) - 1)[:, None]
    above = at.astype(np.intp)[:, 0]
    below = np.minimum(above + 1, len(plane_hW) - 1)
    return np.asarray(plane_hW[above] + (at - above[:, None].astype(np.float32)) * (plane_hW[below] - plane_hW[above]))


def _solve(matrix_6: Planes, right_3: Planes) -> Planes:
    """Solve a symmetric 3 x 3 system at each pixel, by cofactors."""
    rr, rg, rb, gg, gb, bb = matrix_6
    inverse_33 = [
        first := [gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg],
        second := [first[1], rr * bb - rb * rb, rg * rb - rr * gb],
        [first[2], second[2], rr * gg - rg * rg],
    ]
    determinant_HW = _dot(first, [rr, rg, rb])
    return [_dot(row_3, right_3) / determinant_HW for row_3 in inverse_33]


def _dot(one_3: Planes, other_3: Planes | Sequence[np.float32]) -> F32:
    (first, second, third), (fourth, fifth, sixth) = one_3, other_3
    return np.asarray(first * fourth + second * fifth + third * sixth, np.float32)
