"""A photo on its way through the page.

Everything on the screen is drawn at the screen's size, so that a change of the background shows at once whatever the
photo's; what is downloaded is made at the photo's own size when it is asked for, as `cli.py predict` makes it.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from predict.background import Background, remove_background
from predict.encode import encode
from predict.mask import Mask, draw_mask
from predict.photo import decode_photo
from predict.square import find_persons, fit_square
from preprocess.geometry import FitBox
from preprocess.quality import QualityScores, quality_scores
from train.predictor import Trained
from webpage.display import THUMBNAIL, Chequerboard, shrink, to_url

F32 = npt.NDArray[np.float32]
U8 = npt.NDArray[np.uint8]


class Upload(NamedTuple):
    """A file as the browser sent it.

    Attributes:
        key: one to each upload.
        name: of the file.
        data: its bytes.
    """

    key: str
    name: str
    data: bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finish:
    """What is made of a photo once the network has answered; see `predict.config.PredictConfig`."""

    background: Background | None = None
    refined: bool = False
    hard: bool = False
    threshold: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SeenPhoto:
    """A photo that the network has seen.

    Attributes:
        upload: its file.
        width, height: of the upright photo, pixels.
        screen: `(h, w, 3)` uint8, the photo as it is shown.
        probability: `(S, S)` float32, the network's answer.
        box: where in it the photo is.
        before, thumbnail: `data:` URLs of the photo.
    """

    upload: Upload
    width: int
    height: int
    screen: U8
    probability: F32
    box: FitBox
    before: str
    thumbnail: str

    @property
    def longest(self) -> int:
        """The longer side, pixels."""
        return max(self.width, self.height)


class Shown(NamedTuple):
    """What the page shows of a result.

    Attributes:
        after, mask: `data:` URLs.
        scores: how good the mask seems to be.
    """

    after: str
    mask: str
    scores: QualityScores


def see(upload: Upload, trained: Trained) -> SeenPhoto:
    """Decode a photo, and ask the network about it.

    Raises:
        ImageError: see `predict.photo.decode_photo`.
    """
    pixels_HW3 = decode_photo(upload.data).pixels
    square = fit_square(pixels_HW3, trained.side, trained.fit)
    (probability_SS,) = find_persons(trained.predictor, [square])
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
    mask = _mask(photo, photo.screen, finish)
    after_HW3 = remove_background(photo.screen, mask.alpha, finish.background or Chequerboard())
    # Scored on the screen's pixels, as if the network's were as much larger: then these scores are the photo's own.
    scores = quality_scores(
        photo.screen, mask.person, side=max(1, round(side * max(mask.person.shape) / photo.longest))
    )
    return Shown(to_url(after_HW3), to_url(np.dstack([mask.alpha] * 3)), scores)


def make_png(photo: SeenPhoto, finish: Finish) -> bytes:
    """Make the result at the photo's own size: a PNG, RGBA if the background is to be transparent."""
    pixels_HW3, profile = decode_photo(photo.upload.data)
    mask = _mask(photo, pixels_HW3, finish)
    return encode(remove_background(pixels_HW3, mask.alpha, finish.background), "png", profile)


def _mask(photo: SeenPhoto, image_HW3: U8, finish: Finish) -> Mask:
    return draw_mask(
        photo.probability, photo.box, image_HW3, refined=finish.refined, hard=finish.hard, threshold=finish.threshold
    )
