"""Masks that do not flicker: a frame's probabilities are averaged with those of the frames before.

An exponential average whose weight falls, pixel by pixel, with the change of the picture: where something moves, the
past says nothing of it. docs/predict.md has what it gives, against a plain average.

Suffixes: S side, 3 RGB.
"""

from __future__ import annotations

import cv2
import numpy as np

from predict.pipeline import F32
from predict.square import Square

TOLERANCE = 15.0
"""Change of a pixel, mean of its three channels, at which the past has lost 63 % of its weight."""

CUT_SHARE = 0.3
"""Share of a frame's pixels that change by twice the tolerance from which on it is another scene.

Within 32 clips of walking persons and moving cameras it was 0.12 at most, between clips 0.35 at least.
"""


class Smoother:
    """Averages over the frames of one video, given in their order.

    Args:
        weight: of the past where nothing moves, in 0 to 1; 0 leaves all as it is.
    """

    def __init__(self, weight: float) -> None:
        self._weight = weight
        self._before: tuple[Square, F32] | None = None

    def smooth(self, probability_SS: F32, square: Square) -> F32:
        """The average up to a frame, `(S, S)` float32, of which the network saw `square`."""
        if not self._weight:
            return probability_SS
        if self._before:
            past, average_SS = self._before
            weight_SS = np.float32(self._weight) * _trust(past, square)
            probability_SS = probability_SS + weight_SS * (average_SS - probability_SS)
        self._before = square, probability_SS
        return probability_SS


def _trust(past: Square, square: Square) -> F32:
    """How little each pixel has changed, 1 (nothing) to 0; 0 everywhere for another scene."""
    change_SS = cv2.blur(cv2.absdiff(past.pixels, square.pixels).mean(axis=2, dtype=np.float32), (3, 3))
    if np.mean(change_SS[square.box.slices] > 2 * TOLERANCE) > CUT_SHARE:
        return np.zeros_like(change_SS)
    return np.asarray(np.exp(-np.square(change_SS / np.float32(TOLERANCE))), np.float32)
