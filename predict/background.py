"""The background of a composite: a colour, the photo itself blurred, or a picture.

Suffixes: H and W pixels, 3 RGB, 1 one channel.
"""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from PIL import ImageColor

from cache.arrays import U8
from predict.config import PredictError
from predict.photo import decode_photo
from preprocess.errors import ImageError
from preprocess.image import quiet_pillow, read_file

BLUR = 2.0  # usual radius of `blur`, as a percentage of the photo's diagonal
MOST_BLUR = 50.0  # the largest one
SMALL = 320  # longest side, in pixels, of the photo in which the means of foreground and background are taken
WINDOWS = (0.05, 0.01)  # sides of the windows of these means, as shares of the diagonal
STRIP = 256  # rows that are composed at a time, in 16 bits


class Background(Protocol):
    """What can be behind persons."""

    def behind(self, image_HW3: U8, alpha_HW: U8) -> U8:
        """The `(H, W, 3)` pixels behind a photo's persons, whose mask is `alpha_HW`."""


class Colour(NamedTuple):
    """One colour everywhere."""

    rgb: tuple[int, int, int]

    def behind(self, image_HW3: U8, alpha_HW: U8) -> U8:
        """See `Background`."""
        return np.broadcast_to(np.array(self.rgb, np.uint8), image_HW3.shape)


class Blur(NamedTuple):
    """The photo's own background, blurred by a Gaussian whose sigma is `percent` of the diagonal.

    Each pixel is weighted by how much of it is background, so that persons leave no halo of their colours.
    """

    percent: float

    def behind(self, image_HW3: U8, alpha_HW: U8) -> U8:
        """See `Background`."""
        height, width = alpha_HW.shape
        sigma = self.percent / 100 * math.hypot(height, width)
        # Blurred at the size at which sigma is 4 pixels: nothing is lost, and large photos take no longer.
        shrink = max(1.0, sigma / 4)
        small = max(1, round(width / shrink)), max(1, round(height / shrink))
        weight_HW = 255 - cv2.resize(alpha_HW, small, interpolation=cv2.INTER_AREA).astype(np.float32)
        weight_HW1 = np.maximum(weight_HW, 0.5)[..., None]  # no division by zero where there is only person
        colour_HW3 = cv2.resize(image_HW3, small, interpolation=cv2.INTER_AREA).astype(np.float32)
        both_HW4 = np.concatenate((colour_HW3 * weight_HW1, weight_HW1), axis=2)
        both_HW4 = cv2.GaussianBlur(both_HW4, (0, 0), sigma / shrink, borderType=cv2.BORDER_REPLICATE)
        blurred_HW3 = np.rint(both_HW4[..., :3] / both_HW4[..., 3:]).clip(0, 255).astype(np.uint8)
        return np.asarray(cv2.resize(blurred_HW3, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


class Picture(NamedTuple):
    """A picture, `(h, w, 3)` uint8 RGB, scaled until it covers the photo and cropped at its centre."""

    pixels: U8

    def behind(self, image_HW3: U8, alpha_HW: U8) -> U8:
        """See `Background`."""
        height, width = alpha_HW.shape
        own_height, own_width = self.pixels.shape[:2]
        scale = max(height / own_height, width / own_width)
        rows, columns = min(own_height, round(height / scale)), min(own_width, round(width / scale))
        top, left = (own_height - rows) // 2, (own_width - columns) // 2
        part = self.pixels[top : top + max(1, rows), left : left + max(1, columns)]
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        return np.asarray(cv2.resize(part, (width, height), interpolation=interpolation), np.uint8)


def parse_background(text: str) -> Background:
    """Read `#rrggbb`, a CSS name, `blur`, `blur:PERCENT` or the path of a picture.

    Raises `PredictError` if it is none of these, or the picture cannot be read.
    """
    kind, _, number = text.partition(":")
    if kind == "blur":
        try:
            percent = float(number) if number else BLUR
        except ValueError:
            percent = math.nan
        if not 0 < percent <= MOST_BLUR:
            raise PredictError(
                "background={text} wants a percentage of the diagonal, up to {limit:g}; use blur or blur:{usual:g}",
                text=text,
                limit=MOST_BLUR,
                usual=BLUR,
            )
        return Blur(percent)
    with suppress(ValueError):
        red, green, blue = ImageColor.getrgb(text)[:3]
        return Colour((red, green, blue))
    if not Path(text).is_file():
        raise PredictError(
            "background={text} is neither a colour nor a file; use #rrggbb, a CSS name such as white, blur, "
            "blur:PERCENT, or the path of a picture",
            text=text,
        )
    try:
        with quiet_pillow():
            return Picture(decode_photo(read_file(Path(text))).pixels)
    except ImageError as error:
        raise PredictError(
            "background={text} cannot be used: {error}; take another picture", text=text, error=error
        ) from None


def estimate_foreground(image_HW3: U8, alpha_HW: U8) -> U8:
    """A photo whose half-transparent pixels have the foreground's colour, without what shines through of the rest.

    Forte: "Approximate fast foreground colour estimation", ICIP 2021, algorithms 1 and 2; means are of a small photo.
    """
    height, width = alpha_HW.shape
    shrink = max(1.0, max(height, width) / SMALL)
    small = max(1, round(width / shrink)), max(1, round(height / shrink))
    image_hw3 = cv2.resize(image_HW3, small, interpolation=cv2.INTER_AREA).astype(np.float32)
    alpha_hw1 = cv2.resize(alpha_HW, small, interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    front_hw3 = back_hw3 = image_hw3
    for share in WINDOWS:
        size = 2 * [max(3, round(share * math.hypot(*small)))]
        mean_hw1 = cv2.blur(alpha_hw1, size)[..., None]
        near_hw3 = cv2.blur(front_hw3 * alpha_hw1, size) / (mean_hw1 + 1e-5)
        back_hw3 = cv2.blur(back_hw3 * (1 - alpha_hw1), size) / (1 - mean_hw1 + 1e-5)
        rest_hw3 = image_hw3 - alpha_hw1 * near_hw3 - (1 - alpha_hw1) * back_hw3
        front_hw3 = (near_hw3 + alpha_hw1 * rest_hw3).clip(0, 255)
    edge_HW = (alpha_HW > 0) & (alpha_HW < 255)
    means = (cv2.convertScaleAbs(mean_hw3) for mean_hw3 in (near_hw3, back_hw3))  # 8 bits, a quarter of the memory
    near_N3, back_N3 = (cv2.resize(mean_hw3, (width, height))[edge_HW] for mean_hw3 in means)
    alpha_N1 = alpha_HW[edge_HW][:, None] / np.float32(255)
    colours_HW3 = image_HW3.copy()
    front_N3 = near_N3 + alpha_N1 * (image_HW3[edge_HW] - alpha_N1 * near_N3 - (1 - alpha_N1) * back_N3)
    colours_HW3[edge_HW] = np.rint(front_N3).clip(0, 255)
    return colours_HW3


def remove_background(image_HW3: U8, alpha_HW: U8, background: Background | None, colours_HW3: U8) -> U8:
    """A photo's foreground before another background, `(H, W, 3)` RGB; or without one, `(H, W, 4)` RGBA.

    `colours_HW3` are the foreground's, see `estimate_foreground`.
    """
    if background:
        return compose(colours_HW3, alpha_HW, background.behind(image_HW3, alpha_HW))
    # Transparent pixels become black: the background is gone, not hidden, and the file is smaller.
    shown_HW3 = cv2.bitwise_and(colours_HW3, colours_HW3, mask=alpha_HW)
    cutout_HW4 = np.asarray(cv2.cvtColor(shown_HW3, cv2.COLOR_RGB2RGBA), np.uint8)
    cutout_HW4[..., 3] = alpha_HW
    return cutout_HW4


def compose(image_HW3: U8, alpha_HW: U8, background_HW3: U8) -> U8:
    """Lay a photo over a background by straight alpha, rounded to the nearest."""
    composed_HW3 = np.empty_like(image_HW3)
    for top in range(0, len(image_HW3), STRIP):
        rows = slice(top, top + STRIP)
        alpha_HW1 = alpha_HW[rows, :, None].astype(np.uint16)
        mixed_HW3 = image_HW3[rows] * alpha_HW1 + background_HW3[rows] * (255 - alpha_HW1)
        composed_HW3[rows] = (mixed_HW3 + 127) // 255  # at most 255 * 255 + 127, which 16 bits hold
    return composed_HW3
