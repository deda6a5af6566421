"""Pixels for a screen: shrunk to what it shows, as text that a page can hold.

Suffixes: H and W pixels, 3 RGB.
"""

from __future__ import annotations

import base64

import cv2
import numpy as np
import numpy.typing as npt

from preprocess.image import encode_jpeg

U8 = npt.NDArray[np.uint8]

LONGEST = 1280
"""Longest side of a picture on the page: the 390 points of a phone are 1170 pixels."""

THUMBNAIL = 192
"""Longest side of the small picture by which a photo is chosen."""

QUALITY = 85

_SQUARES = 48
"""Squares of the chequerboard along the longest side."""


def shrink(image: U8, longest: int = LONGEST) -> U8:
    """Shrink `(H, W)` or `(H, W, 3)` until no side is longer; what is small enough stays as it is."""
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def to_url(image_HW3: U8) -> str:
    """Give RGB as a `data:` URL of a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(image_HW3, QUALITY).tobytes()).decode("ascii")


class Chequerboard:
    """Light squares, as what lies behind something transparent: a `predict.background.Background`."""

    def behind(self, image_HW3: U8, _alpha_HW: U8) -> U8:
        """See `predict.background.Background`."""
        height, width = image_HW3.shape[:2]
        square = max(1, round(max(height, width) / _SQUARES))
        y_H, x_W = np.arange(height) // square, np.arange(width) // square
        light_HW = (y_H[:, None] + x_W) % 2 == 0
        return np.where(light_HW[..., None], np.uint8(255), np.uint8(222)).repeat(3, axis=2)
