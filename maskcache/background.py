"""Photos without their backgrounds, from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
from PIL.Image import Image, fromarray

from cache.arrays import U8
from cache.choices import Device
from cache.messages import UserError
from predict.config import check_tiles, newest_checkpoint
from predict.mask import Finish, find_persons, fit_square
from predict.photo import Photo, decode_photo, load_photo
from predict.run import kept_predictor
from predict.tiles import look_again
from preprocess.errors import ImageError
from preprocess.image import read_file
from train.predictor import Predictor

File = str | Path | U8
Checkpoint = str | Path | None


class Options(TypedDict, total=False):
    """The keywords of `remove_background`."""

    output: Literal["cutout", "mask"]
    soft: bool
    hard: bool
    threshold: float | None
    tiles: int
    device: Device | None


@overload
def remove_background(photo: Image, checkpoint: Checkpoint = None, **options: Unpack[Options]) -> Image: ...
@overload
def remove_background(photo: File, checkpoint: Checkpoint = None, **options: Unpack[Options]) -> U8: ...  # type: ignore[overload-overlap]
@overload
def remove_background(
    photo: Sequence[Image], checkpoint: Checkpoint = None, **options: Unpack[Options]
) -> list[Image]: ...
@overload
def remove_background(photo: Sequence[File], checkpoint: Checkpoint = None, **options: Unpack[Options]) -> list[U8]: ...
def remove_background(
    photo: File | Image | Sequence[File] | Sequence[Image],
    checkpoint: Checkpoint = None,
    *,
    output: Literal["cutout", "mask"] = "cutout",
    soft: bool = False,
    hard: bool = False,
    threshold: float | None = None,
    tiles: int = 1,
    device: Device | None = None,
) -> object:
    """Cut the persons out of one photo or several, as `cli.py predict` does.

    The network stays loaded for further calls, and any number of threads may call at the same time.

    Args:
        photo: a file's path; a PIL image of any mode; uint8 pixels, `(H, W, 3)` RGB, `(H, W, 4)` RGBA or `(H, W)` grey;
            or a sequence of one of these. Files and PIL images are turned as their EXIF says, and what is transparent
            is laid on white.
        checkpoint: a `best_model.pth` or `last_model.pth`; None takes the best one of the newest run in `runs`,
            or the sample network where there is no run.
        output: `cutout`: RGBA, whose last channel is the mask, 255 where a pixel is wholly a person, and whose
            transparent pixels are black; `mask`: the mask alone.
        soft: take the network's probability as the mask, and the photo's colours as they are.
        hard: make a mask of 0 and 255.
        threshold: the probability at which the mask's edge is; None: as measured in training.
        tiles: to find small persons in large photos, look at this many parts across the longer side, too.
        device: `cpu` or `cuda`; None takes a GPU if there is one.

    Returns:
        For a PIL image a PIL image, RGBA or L, with its colour profile; for a path or an array `(H, W, 4)` or `(H, W)`
        uint8; of the upright photo's size. For a sequence a list of these, in order; as many photos as in a batch of
        training are predicted together, and beside the results no more are in memory.

    Raises:
        ImageError: a photo cannot be used; the message says which one.
        ValueError: another argument cannot be, or there is no run; the message says why. The former is one, too.
    """
    if output not in ("cutout", "mask"):
        raise UserError("output={output!r} is not known; use 'cutout' or 'mask'", output=output)
    check_tiles(tiles)
    finish = Finish(kind=output, soft=soft, hard=hard, threshold=0.5 if threshold is None else threshold)
    several = isinstance(photo, Sequence) and not isinstance(photo, str | bytes)
    photos: Any = photo if several else [photo]
    named = [(f"photo[{number}]" if several else "photo", each) for number, each in enumerate(photos)]
    if not named:
        raise UserError("the list of photos is empty; give one photo or more")
    predictor = kept_predictor(Path(newest_checkpoint() if checkpoint is None else checkpoint), device)
    if threshold is None:
        finish = dataclasses.replace(finish, threshold=predictor.threshold)
    results, size = list[U8 | Image](), predictor.config.loader.batch_size
    for start in range(0, len(named), size):
        results += _cut_out(named[start : start + size], predictor, finish, tiles)
    return results if several else results[0]


def _cut_out(named: list[tuple[str, Any]], predictor: Predictor, finish: Finish, tiles: int) -> Iterator[U8 | Image]:
    """Predict photos in one batch, and give their results."""
    read = [_read(name, photo) for name, photo in named]
    squares = [fit_square(pixels_HW3, predictor.side, predictor.spec.fit) for pixels_HW3, _ in read]
    answers = zip(named, read, squares, find_persons(predictor, squares), strict=True)
    for (_, photo), (pixels_HW3, profile), (_, box), probability_SS in answers:
        answer = look_again(predictor, pixels_HW3, (probability_SS, box), tiles, predictor.config.loader.batch_size)
        result, _ = finish.draw(*answer, pixels_HW3)
        given = fromarray(result) if isinstance(photo, Image) else result
        if isinstance(given, Image) and profile and finish.kind == "cutout":
            given.info["icc_profile"] = profile
        yield given


def _read(name: str, photo: Any) -> Photo:
    """The pixels of a photo; `name` is that of an array or a PIL image in errors."""
    try:
        if isinstance(photo, str | Path):
            name = str(photo)
            return decode_photo(read_file(Path(photo)))
        array = isinstance(photo, np.ndarray) and photo.dtype == np.uint8 and photo.ndim > 1 and photo.size
        if array and photo.shape[2:] in ((), (3,), (4,)):
            photo = fromarray(photo)
        if isinstance(photo, Image) and 0 not in photo.size:
            return load_photo(photo)
        shape, dtype = getattr(photo, "shape", getattr(photo, "size", "")), getattr(photo, "dtype", "")
        raise ImageError(
            "it is {found}; use a path, a PIL image, or pixels as uint8 (height, width), (height, width, 3) RGB or "
            "(height, width, 4) RGBA, none of them 0",
            found=f"{type(photo).__name__} {shape} {dtype}".strip(),
        )
    except ImageError as error:
        raise ImageError("{photo}: {error}", photo=name, error=error) from None
