"""A network's answer as the mask of its photo, and how sure the network is of it.

Suffixes: H and W pixels, S side, 3 RGB, h and w pixels of the photo's part of the network's square.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from predict.refine import refine
from preprocess.geometry import FitBox, restore_mask

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


class Mask(NamedTuple):
    """Where the persons are.

    Attributes:
        alpha: `(H, W)` uint8; 255 is wholly a person.
        person: `(H, W)` uint8 of 0 and 1: where the probability is above the threshold.
    """

    alpha: U8
    person: U8

    @property
    def coverage(self) -> float:
        """Share of persons, in percent."""
        return 100 * int(np.count_nonzero(self.person)) / self.person.size


def draw_mask(probability_SS: F32, box: FitBox, image_HW3: U8, *, refined: bool, hard: bool, threshold: float) -> Mask:
    """Bring a network's answer to the size of the photo.

    Args:
        probability_SS: `(S, S)` float32 in 0 to 1.
        box: where in it the photo is.
        image_HW3: the photo, at any size: the mask gets that one.
        refined: draw the edges along the photo's, see `predict.refine`.
        hard: only 0 and 255, instead of the probability.
        threshold: probability above which a pixel counts as a person: for `person`, and for `hard`.
    """
    probability_HW = restore_mask(probability_SS, box, *image_HW3.shape[:2])
    if refined:
        probability_HW = refine(probability_HW, image_HW3)
    person_HW = (probability_HW > threshold).view(np.uint8)
    opaque_HW = person_HW if hard else probability_HW
    alpha_HW = np.asarray(cv2.convertScaleAbs(opaque_HW, alpha=255), np.uint8)  # to the nearest
    return Mask(alpha_HW, person_HW)


def certainty(probability_hw: npt.NDArray[np.float32], threshold: float) -> float:
    """The IoU that the mask would have if the probabilities were right, in percent; 0 where nobody is found.

    Of each pixel of the mask its probability is expected to be common to mask and person; the mask and, of each pixel
    beside it, its probability are expected to be in one of them. Networks trust themselves too much, so it is good for
    comparing photos and says too much of a single one; `docs/quality.md` has how well it predicts the true IoU.

    Args:
        probability_hw: float32 in 0 to 1, at least one pixel.
        threshold: above which a pixel is in the mask.
    """
    inside_hw = probability_hw > threshold
    persons = int(np.count_nonzero(inside_hw))
    if not persons:
        return 0.0
    common = float(probability_hw.sum(where=inside_hw, dtype=np.float64))
    beside = float(probability_hw.sum(dtype=np.float64)) - common
    return 100 * common / (persons + max(0.0, beside))
