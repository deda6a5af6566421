"""One photo without its background, from Python."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from cache.choices import Device
from cache.messages import UserError
from predict import background
from predict.mask import draw_mask, find_persons, fit_square
from predict.photo import decode_photo
from preprocess.errors import ImageError
from preprocess.image import quiet_pillow, read_file
from train.predictor import Predictor, load_predictor

U8 = npt.NDArray[np.uint8]


def remove_background(
    photo: str | Path | U8, checkpoint: str | Path, *, device: Device | None = None, refine: bool = False
) -> U8:
    """Cut the persons out of one photo, as `cli.py predict` does.

    The network stays loaded for the next call with the same checkpoint and device.

    Args:
        photo: its file, turned as its EXIF says; or its pixels, `(H, W, 3)` uint8 RGB.
        checkpoint: a `best_model.pth` or `last_model.pth`.
        device: `cpu` or `cuda`; None takes a GPU if there is one.
        refine: draw the mask's edges along the photo's.

    Returns:
        `(H, W, 4)` uint8 RGBA. The last channel is the mask, 255 where a pixel is wholly a person; transparent pixels
        are black.

    Raises:
        ImageError: the file is missing or is no image.
        ValueError: the array is not uint8 RGB.
        CheckpointError: the file is not a checkpoint.
        HardwareError: there is no such device.
    """
    if isinstance(photo, np.ndarray):
        pixels_HW3 = np.ascontiguousarray(photo)
        if pixels_HW3.dtype != np.uint8 or pixels_HW3.ndim != 3 or pixels_HW3.shape[2] != 3 or not pixels_HW3.size:
            raise UserError(
                "photo has shape {shape} and dtype {dtype}; use RGB as (height, width, 3) uint8",
                shape=pixels_HW3.shape,
                dtype=pixels_HW3.dtype,
            )
    else:
        try:
            with quiet_pillow():
                pixels_HW3 = decode_photo(read_file(Path(photo))).pixels
        except ImageError as error:
            raise ImageError("{photo}: {error}", photo=photo, error=error) from None
    path = Path(checkpoint).resolve()
    predictor = _load(path, path.stat().st_mtime_ns if path.exists() else 0, device)
    square = fit_square(pixels_HW3, predictor.side, predictor.fit)
    (probability_SS,) = find_persons(predictor, [square])
    mask = draw_mask(probability_SS, square.box, pixels_HW3, refined=refine, hard=False, threshold=0.5)
    return background.remove_background(pixels_HW3, mask.alpha, None)


@lru_cache(maxsize=1)
def _load(path: Path, _modified: int, device: Device | None) -> Predictor:
    return load_predictor(path, device, None)
