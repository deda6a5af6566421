"""How a photo of any size is laid into the square of the cache, and how a mask gets back out of it."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cache.spec import Fit

U8 = npt.NDArray[np.uint8]


class FitBox(NamedTuple):
    """Where the photo lies within the square, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as row and column slices."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def fit_box(height: int, width: int, side: int, fit: Fit) -> FitBox:
    """The box that a photo of `height` x `width` pixels fills in a square of `side`.

    `letterbox` keeps the aspect (the short side is rounded to the nearest pixel, at least 1) and centres, with the odd
    pixel below or to the right; `stretch` fills the square.
    """
    if fit == "stretch":
        return FitBox(0, 0, side, side)
    longest = max(height, width)
    inner_width = max(1, (2 * width * side + longest) // (2 * longest))  # round half up, in integers
    inner_height = max(1, (2 * height * side + longest) // (2 * longest))
    return FitBox((side - inner_width) // 2, (side - inner_height) // 2, inner_width, inner_height)


def place_image(image_HW3: U8, box: FitBox, side: int) -> U8:
    """A photo resized into its box, `(side, side, 3)`; the padding is black.

    `cv2.resize` with `INTER_AREA` when it shrinks, `INTER_LINEAR` when it grows.
    """
    height, width = image_HW3.shape[:2]
    shrinks = box.width <= width and box.height <= height
    resized = cv2.resize(image_HW3, box[2:], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if (box.width, box.height) == (side, side):
        return _as_u8(resized)
    square = np.zeros((side, side, 3), np.uint8)
    square[box.slices] = resized
    return square


def place_plane(plane_HW: U8, box: FitBox, side: int, padding: int) -> U8:
    """A plane of 0 and 1 resized into its box, `(side, side)` of 0 and 1; `padding` fills the rest.

    A pixel is set when at least half of its area is: `cv2.resize(255 * plane, INTER_AREA) >= 128`.
    """
    square = np.full((side, side), padding, np.uint8)
    if plane_HW.any():
        resized = cv2.resize(plane_HW * np.uint8(255), box[2:], interpolation=cv2.INTER_AREA)
        square[box.slices] = resized >= 128
    else:
        square[box.slices] = 0
    return square


def restore_mask(mask_SS: npt.NDArray[np.float32], box: FitBox, height: int, width: int) -> npt.NDArray[np.float32]:
    """The inverse of the fit for a soft mask: cut the box out and resize it to the photo's `(height, width)`."""
    inner = np.ascontiguousarray(mask_SS[box.slices])
    restored = cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(restored, np.float32)


def _as_u8(array: npt.NDArray[np.integer | np.floating]) -> U8:
    return np.asarray(array, np.uint8)
