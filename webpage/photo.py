"""A photo on its way through the page: decoded, seen by the network, drawn for the screen, made as a PNG.

Everything on the screen is drawn at the screen's size, so that a change of the background shows at once whatever the
photo's; what is downloaded is made at the photo's own size when it is asked for, as `cli.py predict` makes it.
Suffixes: H and W pixels, 3 RGB.
"""

from __future__ import annotations

import base64
import dataclasses
from threading import Lock
from typing import NamedTuple

import cv2
import numpy as np

from cache.arrays import F32, U8
from predict.mask import Finish, find_persons, fit_square
from predict.photo import check_sides, decode_photo, encode
from preprocess.check.quality import QualityScores, quality_scores
from preprocess.image import FitBox, encode_jpeg
from train.predictor import Predictor

LONGEST = 1280
"""Longest side of a picture on the page: the 390 points of a phone are 1170 pixels."""

THUMBNAIL = 192
"""Longest side of the small picture by which a photo is chosen."""

QUALITY = 85

WHOLE = Lock()
"""Of all browsers' photos one is in memory at its own size: it may take gigabytes."""

_SQUARES = 48
"""Squares of the chequerboard along the longest side."""


class Upload(NamedTuple):
    """A file as the browser sent it; `key` is another for each upload."""

    key: str
    name: str
    data: bytes


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SeenPhoto:
    """A photo that the network has seen. `before` and `thumbnail` are `data:` URLs of it."""

    upload: Upload
    width: int  # of the upright photo, pixels
    height: int
    screen: U8  # (h, w, 3), the photo as it is shown
    probability: F32  # (S, S), the network's answer
    box: FitBox  # where in the answer the photo is
    before: str
    thumbnail: str


class Shown(NamedTuple):
    """What the page shows of a result; `after` and `mask` are `data:` URLs."""

    after: str
    mask: str
    scores: QualityScores


def see(upload: Upload, predictor: Predictor) -> SeenPhoto:
    """Decode a photo, and ask the network about it.

    Raises `ImageError`: see `predict.photo.decode_photo`; or the result would be too long for a PNG.
    """
    pixels_HW3 = decode_photo(upload.data).pixels
    check_sides(pixels_HW3, "png")
    square = fit_square(pixels_HW3, predictor.side, predictor.spec.fit)
    (probability_SS,) = find_persons(predictor, [square])
    height, width = pixels_HW3.shape[:2]
    screen_HW3 = shrink(pixels_HW3)
    return SeenPhoto(
        upload=upload,
        width=width,
        height=height,
        screen=screen_HW3,
        probability=probability_SS,
        box=square.box,
        before=to_url(screen_HW3),
        thumbnail=to_url(shrink(screen_HW3, THUMBNAIL)),
    )


def show(photo: SeenPhoto, finish: Finish, side: int) -> Shown:
    """Draw a result for the screen; what is transparent lies on a chequerboard. `side`: of the network's square."""
    finish = dataclasses.replace(finish, background=finish.background or Chequerboard())
    after_HW3, mask = finish.draw(photo.probability, photo.box, photo.screen)
    # Scored on the screen's pixels, as if the network's were as much larger: then these scores are the photo's own.
    scored_side = max(1, round(side * max(mask.person.shape) / max(photo.width, photo.height)))
    scores = quality_scores(photo.screen, mask.person, side=scored_side)
    return Shown(to_url(after_HW3), to_url(np.dstack([mask.alpha] * 3)), scores)


def make_png(photo: SeenPhoto, finish: Finish) -> bytes:
    """Make the result at the photo's own size: a PNG, RGBA if the background is to be transparent."""
    with WHOLE:
        pixels_HW3, profile = decode_photo(photo.upload.data)
        return encode(finish.draw(photo.probability, photo.box, pixels_HW3)[0], "png", profile)


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
