"""A second look at parts of a photo: persons that are too small in the whole are larger in them.

Parts overlap, and a raised cosine blends their answers, without seams. They see small persons and edges better than the
whole, but not the inside of a large person, of whom they show a piece: so the whole adds half of what it sees more of,
at most, where it sees much. docs/predict-results.md has what that gives, against means and a larger square.

Suffixes: H and W pixels of the photo, h and w of its answer, S side of the network's square, 3 RGB.
"""

from __future__ import annotations

from itertools import product

import cv2
import numpy as np

from cache.arrays import F32, U8
from predict.mask import find_persons, fit_square
from preprocess.image import FitBox, place_image
from train.predictor import Predictor

Answer = tuple[F32, FitBox]
"""The probability of a person, float32, and where in it the photo is."""


def look_again(predictor: Predictor, image_HW3: U8, answer: Answer, tiles: int, batch_size: int) -> Answer:
    """Add to the answer about the whole photo what its parts show.

    `tiles` is the number of parts across the longer side, each a quarter over its neighbour, and as large as the
    network's square; `batch_size` the largest number of them that are predicted together.
    """
    whole_hw, side = np.ascontiguousarray(answer[0][answer[1].slices]), len(answer[0])
    # Of a small photo there are fewer, or none: it is enlarged 1.4 times at most.
    tiles = min(tiles, int((5.6 * max(image_HW3.shape[:2]) / side - 1) / 3))
    if tiles < 2:
        return answer
    height, width = (max(1, round(length * (3 * tiles + 1) / 4)) for length in whole_hw.shape)
    box = FitBox(0, 0, width, height)
    place_image(image_HW3, box, image_hw3 := np.empty((height, width, 3), np.uint8))
    cosine_S = np.sin(np.pi * (np.arange(side, dtype=np.float32) + np.float32(0.5)) / side) ** 2
    weight_SS, sum_hw, weights_hw = np.outer(cosine_S, cosine_S), *np.zeros((2, height, width), np.float32)
    corners = list(product(_starts(height, side), _starts(width, side)))
    for first in range(0, len(corners), batch_size):
        group = [(slice(y, y + side), slice(x, x + side)) for y, x in corners[first : first + batch_size]]
        squares = [fit_square(image_hw3[at], side, "letterbox") for at in group]  # one that is too narrow is centred
        for at, (_, inner), probability_SS in zip(group, squares, find_persons(predictor, squares), strict=True):
            sum_hw[at] += (weight_SS * probability_SS)[inner.slices]
            weights_hw[at] += weight_SS[inner.slices]
    window = max(1, round(0.24 * max(whole_hw.shape)))  # in which the whole is to see much
    much_hw = np.minimum(cv2.blur(whole_hw, (window, window)), np.float32(0.5))
    sum_hw /= weights_hw
    more_hw = np.maximum(cv2.resize(whole_hw, (width, height)) - sum_hw, 0)
    return np.asarray(sum_hw + cv2.resize(much_hw, (width, height)) * more_hw, np.float32), box


def _starts(length: int, side: int) -> list[int]:
    """Where the parts begin that cover a length: evenly, with a quarter or more in common."""
    count = max(1, -((side // 4 - length) // (side - side // 4)))
    return [number * (length - side) // max(1, count - 1) for number in range(count)]
