"""Pixels -> the bytes of a PNG or JPEG."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

from cache.choices import PredictFormat

U8 = npt.NDArray[np.uint8]

JPEG_QUALITY = 95

COMMENT = "comment"
"""Pillow's name of a JPEG's comment; that of the text in a PNG is the same here."""

_PNG_HEAD = 33
"""Bytes of a PNG's signature and first chunk, behind which others may stand."""

_PNG_OPTIONS = (
    (cv2.IMWRITE_PNG_COMPRESSION, 1),
    (cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    (cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
)
"""Encoding takes longest next to the network, so all rows have one filter, and zlib looks for run lengths only.

Of 40 cutouts of 0.28 Mpx that takes half the time of Pillow at the same level, and a seventh of its usual level 6, for
files that are larger by 6 and 12 %; docs/predict.md has the figures.
"""


def encode(pixels: U8, file_format: PredictFormat, profile: bytes | None, comment: str = "") -> bytes:
    """Encode `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, with its ICC profile if it has one.

    `comment` is ASCII text for the file's metadata, which `read_comment` gives back; nothing is written if it is empty.
    A JPEG has quality 95 and full chroma: at the edge of a person half of it would be smeared into the background.
    """
    if file_format == "png":
        return _encode_png(pixels, profile, comment)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=profile, comment=comment)
    return buffer.getvalue()


def read_comment(path: Path) -> str:
    """The comment in a file that `encode` gave; empty if it has none.

    Raises:
        OSError: it cannot be read, or is no PNG or JPEG.
    """
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        comment = image.info.get(COMMENT, b"")
    return comment if isinstance(comment, str) else comment.decode("ascii", "replace")


def _encode_png(pixels: U8, profile: bytes | None, comment: str) -> bytes:
    if pixels.ndim == 3:
        order = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        pixels = np.asarray(cv2.cvtColor(pixels, order), np.uint8)
    _, png = cv2.imencode(".png", pixels, [number for option in _PNG_OPTIONS for number in option])
    # OpenCV writes no text, and fails at profiles that libpng does not like: cameras write such ones.
    buffer = io.BytesIO()
    buffer.write(png[:_PNG_HEAD].data)
    if profile:
        PngImagePlugin.putchunk(buffer, b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    if comment:
        PngImagePlugin.putchunk(buffer, b"tEXt", f"{COMMENT}\0{comment}".encode("ascii"))
    buffer.write(png[_PNG_HEAD:].data)
    return buffer.getvalue()
