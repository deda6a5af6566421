"""The network's square: a photo is fitted into it, and the network predicts it.

Suffixes: N photos, H and W pixels, S side, 3 RGB, 1 one channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from cache.choices import Fit
from preprocess.geometry import FitBox, fit_box, place_image
from train.predictor import Predictor

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


class Square(NamedTuple):
    """A photo as the network sees it.

    Attributes:
        pixels: `(S, S, 3)` uint8 RGB.
        box: where in it the photo is.
    """

    pixels: U8
    box: FitBox


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


@contextmanager
def shared_processors(predictor: Predictor) -> Iterator[None]:
    """Let a network on the CPU use half of the processors while other threads read and write.

    A network's threads wait for the slowest of them at each layer. With as many threads as processors, a quarter of the
    speed or less was left on two processors, because reading and writing slowed one of them.
    """
    before = torch.get_num_threads()
    if predictor.device == "cpu":
        torch.set_num_threads(max(1, before // 2))
    try:
        yield
    finally:
        torch.set_num_threads(before)
