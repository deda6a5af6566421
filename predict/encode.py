"""Pixels -> the bytes of a PNG or JPEG."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from predict.config import Format

U8 = npt.NDArray[np.uint8]

# Of 20 cutouts of 0.28 Mpx, a quarter of each a person, on one core: level 1 with run lengths 9.8 ms and 231 kB, level
# 1 as usual 11.7 ms and 237 kB, level 4 16.8 ms and 225 kB, level 6, zlib's own choice, 22.5 ms and 221 kB. Twice the
# time for 4 % of the bytes is no good trade where encoding is what takes longest. Of whole photos run lengths cost 3 %.
PNG_LEVEL = 1
PNG_STRATEGY = 3  # zlib's Z_RLE

JPEG_QUALITY = 95


def encode(pixels: U8, file_format: Format, profile: bytes | None) -> bytes:
    """Encode `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, with its ICC profile if it has one.

    A JPEG has quality 95 and full chroma: at the edge of a person half of it would be smeared into the background.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    if file_format == "jpeg":
        image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=profile)
    else:
        image.save(buffer, "PNG", compress_level=PNG_LEVEL, compress_type=PNG_STRATEGY, icc_profile=profile)
    return buffer.getvalue()
