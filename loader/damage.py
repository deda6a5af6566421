"""What a loader says of a record that it cannot use; the same words on every backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import simplejpeg

from cache.errors import CacheCorruptError

if TYPE_CHECKING:
    from cache.reader import CacheReader


def unreadable(reader: CacheReader, sample: int, reason: str) -> CacheCorruptError:
    """The error that a sample's record cannot be used."""
    return CacheCorruptError(
        f"sample {sample} (image {reader.samples['image_id'][sample]}) of {reader.root}/{reader.split} cannot be read: "
        f"{reason}; run `verify --cache {reader.root}`"
    )


def check_jpeg(jpeg: npt.NDArray[np.uint8], side: int) -> None:
    """Refuse a JPEG that is not of `(side, side)` pixels, before a decoder writes it into a buffer of that size.

    Raises:
        CacheCorruptError: it has another size.
        ValueError: it has no JPEG header.
    """
    height, width, _, _ = simplejpeg.decode_jpeg_header(jpeg)
    if (height, width) != (side, side):
        raise CacheCorruptError(f"its JPEG is {width} x {height} pixels, not {side} x {side}")
