"""Fit a photo of any size into the square of the cache, and restore a mask to the photo's size."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from cache.choices import Fit
from cache.record import pack_plane
from preprocess.resize import shrink_image, shrink_plane

U8 = npt.NDArray[np.uint8]


class FitBox(NamedTuple):
    """The position and size of the photo within the square, in pixels."""

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


def place_image(image_HW3: U8, box: FitBox, square_SS3: U8) -> None:
    """Resize a photo into its box of `square_SS3` (C-contiguous), wholly written; the padding is black.

    As `cv2.resize` with `INTER_AREA` when it shrinks, `INTER_LINEAR` when it grows.
    """
    if box.width * box.height < square_SS3.shape[0] * square_SS3.shape[1]:
        square_SS3[:] = 0
    height, width = image_HW3.shape[:2]
    if box.width <= width and box.height <= height:
        shrink_image(image_HW3, square_SS3, *box)
    else:
        square_SS3[box.slices] = cv2.resize(image_HW3, box[2:], interpolation=cv2.INTER_LINEAR)


def place_plane(plane_HW: U8, box: FitBox, bits_SB: U8, padding: int) -> int:
    """Resize a plane of 0 and 1 into its box of a packed plane, wholly written; `padding` fills the rest.

    A pixel is set when at least half of its area is: `cv2.resize(255 * plane, INTER_AREA) >= 128`.

    Args:
        plane_HW: `(H, W)` uint8 of 0 and 1.
        box: where it goes.
        bits_SB: `(S, S / 8)` uint8, C-contiguous, packed as in `cache.record`.
        padding: 0 or 1.

    Returns:
        Pixels that are set in the box.
    """
    height, width = plane_HW.shape
    if box.width <= width and box.height <= height:
        bits_SB[:] = 255 * padding
        return shrink_plane(plane_HW, bits_SB, *box)
    square = np.full((len(bits_SB), len(bits_SB)), padding, np.uint8)
    square[box.slices] = cv2.resize(plane_HW * np.uint8(255), box[2:], interpolation=cv2.INTER_AREA) >= 128
    bits_SB[:] = pack_plane(square).reshape(bits_SB.shape)
    return int(square[box.slices].sum())


def restore_mask(mask_SS: npt.NDArray[np.float32], box: FitBox, height: int, width: int) -> npt.NDArray[np.float32]:
    """The inverse of the fit for a soft mask: cut the box out and resize it to the photo's `(height, width)`."""
    inner = np.ascontiguousarray(mask_SS[box.slices])
    restored = cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(restored, np.float32)
