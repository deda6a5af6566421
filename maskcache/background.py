"""Photos without their backgrounds, from Python."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
from PIL import Image

from cache.choices import Device
from cache.messages import UserError
from cache.record import U8
from predict.config import CHECKPOINTS, find_checkpoints
from predict.mask import Finish, find_persons, fit_square
from predict.network import kept_predictor
from predict.photo import Photo, decode_photo, load_photo
from preprocess.errors import ImageError
from preprocess.image import read_file
from train.checkpoint import CheckpointError
from train.predictor import Predictor

Checkpoint = str | Path | None
File = str | Path | U8


class Options(TypedDict, total=False):
    """The keywords of `remove_background`."""

    output: Literal["cutout", "mask"]
    refine: bool
    hard: bool
    threshold: float
    device: Device | None


@overload
def remove_background(photo: Image.Image, checkpoint: Checkpoint = None, **options: Unpack[Options]) -> Image.Image: ...
@overload
def remove_background(  # type: ignore[overload-overlap]  # a str is a sequence, too, and is taken as a path
    photo: File, checkpoint: Checkpoint = None, **options: Unpack[Options]
) -> U8: ...
@overload
def remove_background(
    photo: Sequence[Image.Image], checkpoint: Checkpoint = None, **options: Unpack[Options]
) -> list[Image.Image]: ...
@overload
def remove_background(photo: Sequence[File], checkpoint: Checkpoint = None, **options: Unpack[Options]) -> list[U8]: ...
def remove_background(
    photo: File | Image.Image | Sequence[File | Image.Image],
    checkpoint: Checkpoint = None,
    *,
    output: Literal["cutout", "mask"] = "cutout",
    refine: bool = False,
    hard: bool = False,
    threshold: float = 0.5,
    device: Device | None = None,
) -> object:
    """Cut the persons out of one photo or several, as `cli.py predict` does.

    The network stays loaded for further calls, and any number of threads may call at the same time.

    Args:
        photo: the path of a file; or a PIL image of any mode; or pixels, `(H, W, 3)` uint8 RGB, `(H, W, 4)` RGBA or
            `(H, W)` grey; or a sequence of these, of any sizes. Files and PIL images are turned as their EXIF says, and
            what is transparent is laid on white.
        checkpoint: a `best_model.pth` or `last_model.pth`; None takes the best one of the newest run in `runs`.
        output: `cutout`: RGBA, whose last channel is the mask, 255 where a pixel is wholly a person, and whose
            transparent pixels are black; `mask`: the mask alone.
        refine: draw the mask's edges along the photo's.
        hard: make a mask of 0 and 255, instead of the probability.
        threshold: the probability above which a pixel counts as a person, for `hard`.
        device: `cpu` or `cuda`; None takes a GPU if there is one.

    Returns:
        For a PIL image a PIL image, RGBA or L, with its colour profile; for a path or an array `(H, W, 4)` or `(H, W)`
        uint8; all of the upright photo's size. For a sequence a list of these, in order. As many are predicted
        together as in training; beside the results, no more photos than those are in memory at once.

    Raises:
        ImageError: a photo cannot be read, or is an array of another shape or dtype; the message says which one.
        ValueError: another argument is none of those above, or the sequence is empty.
        CheckpointError: the file is not a checkpoint, or there is no run.
        HardwareError: there is no such device.
    """
    if output not in ("cutout", "mask"):
        raise UserError("output={output!r} is not known; use 'cutout' or 'mask'", output=output)
    finish = Finish(kind=output, refine=refine, hard=hard, threshold=threshold)
    several = isinstance(photo, Sequence) and not isinstance(photo, str | bytes)
    photos: Any = list(photo) if several else [photo]
    if not photos:
        raise UserError("the list of photos is empty; give one photo or more")
    predictor = kept_predictor(_newest_checkpoint() if checkpoint is None else Path(checkpoint), device)
    names = [f"photo[{number}]" if several else "photo" for number in range(len(photos))]
    results, size = list[U8 | Image.Image](), predictor.config.loader.batch_size
    for start in range(0, len(photos), size):
        part = slice(start, start + size)
        results += _cut_out(names[part], photos[part], predictor, finish)
    return results if several else results[0]


def _cut_out(
    names: Sequence[str], photos: Sequence[object], predictor: Predictor, finish: Finish
) -> Iterator[U8 | Image.Image]:
    """Predict photos in one batch, and give their results."""
    read = [_read(name, photo) for name, photo in zip(names, photos, strict=True)]
    squares = [fit_square(pixels_HW3, predictor.side, predictor.fit) for pixels_HW3, _ in read]
    answers = zip(photos, read, squares, find_persons(predictor, squares), strict=True)
    for photo, (pixels_HW3, profile), (_, box), probability_SS in answers:
        result, _ = finish.draw(probability_SS, box, pixels_HW3)
        yield _as_image(result, profile) if isinstance(photo, Image.Image) else result


def _newest_checkpoint() -> Path:
    for newest in find_checkpoints(Path(), CHECKPOINTS):
        return newest
    raise CheckpointError(
        "there is no {pattern} in {folder}; train a network with `cli.py train`, or name one with checkpoint=",
        pattern=CHECKPOINTS,
        folder=Path.cwd(),
    )


def _read(name: str, photo: object) -> Photo:
    """The pixels of a photo; `name` is that of an array or a PIL image in errors."""
    try:
        if isinstance(photo, str | Path):
            name = str(photo)
            return decode_photo(read_file(Path(photo)))
        if isinstance(photo, np.ndarray):
            if photo.dtype != np.uint8 or photo.ndim not in (2, 3) or photo.shape[2:] not in ((), (3,), (4,)):
                raise ImageError(
                    "it has shape {shape} and dtype {dtype}; use uint8, and (height, width), (height, width, 3) RGB or "
                    "(height, width, 4) RGBA",
                    shape=photo.shape,
                    dtype=photo.dtype,
                )
            photo = Image.fromarray(photo) if photo.size else Image.new("L", photo.shape[1::-1])
        if not isinstance(photo, Image.Image):
            raise ImageError("it is of type {type}; use a path, a PIL image or an array", type=type(photo).__name__)
        if not photo.width * photo.height:
            raise ImageError("it has no pixels; leave it out")
        return load_photo(photo)
    except ImageError as error:
        raise ImageError("{photo}: {error}", photo=name, error=error) from None


def _as_image(result: U8, profile: bytes | None) -> Image.Image:
    image = Image.fromarray(result)
    if profile and image.mode == "RGBA":
        image.info["icc_profile"] = profile
    return image
