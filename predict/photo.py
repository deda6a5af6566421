"""Photos of any usual kind to pixels, upright, RGB, 8 bits; and pixels to the bytes of a PNG or JPEG."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from cache.arrays import U8
from cache.choices import PredictFormat
from preprocess.errors import ImageError
from preprocess.image import check_file, check_scans, exif_orientation, load_rgb, open_image, turn_upright

JPEG_QUALITY = 95

LONGEST_SIDE: dict[PredictFormat, int] = {"png": 1_000_000, "jpeg": 65_500}
"""Pixels along a side that the encoders write at most."""

COMMENT = "comment"
"""Pillow's name of a JPEG's comment; that of the text in a PNG is the same here."""

_PNG_HEAD = 33
"""Bytes of a PNG's signature and first chunk, behind which others may stand."""

_PNG_OPTIONS = [
    *(cv2.IMWRITE_PNG_COMPRESSION, 1),
    *(cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE),
    *(cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_UP),
]
"""Encoding takes longest next to the network, so all rows have one filter, and zlib looks for run lengths only.

With 40 cutouts of 0.28 Mpx this takes half the time of Pillow at the same level, and a seventh of its usual level 6;
the files are larger by 6 and 12 %. docs/predict.md has the figures.
"""


class Photo(NamedTuple):
    """A photo's pixels, `(H, W, 3)` uint8 RGB, upright, and its ICC profile if the file has one."""

    pixels: U8
    profile: bytes | None


def count_pixels(path: Path | None) -> int:
    """A photo's height times width, from its file's head; 0 on standard input, and of what reading it rejects."""
    with suppress(ImageError, OSError):
        if path:
            check_file(path)
            with path.open("rb") as file:
                image = _open(file)
            return image.width * image.height
    return 0


def decode_photo(data: bytes) -> Photo:
    """Decode the bytes of an image file, see `load_photo`.

    Raises `ImageError` if it is no image of a known format, damaged, or larger than the limits.
    """
    check_scans(data)
    return load_photo(_open(io.BytesIO(data)))


def load_photo(image: Image.Image) -> Photo:
    """Decode an image that Pillow has opened by `load_rgb`, and turn it as its EXIF says."""
    pixels = load_rgb(image)
    profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA", "P") else None
    return Photo(turn_upright(pixels, exif_orientation(image)), profile)


def _open(file: BinaryIO) -> Image.Image:
    """Read the head of an image file."""
    if not file.read(1):
        raise ImageError("the image file is empty")
    file.seek(0)
    image, limit = open_image(file), Image.MAX_IMAGE_PIXELS
    if limit and image.width * image.height > limit:
        values = {"width": image.width, "height": image.height, "limit": limit}
        raise ImageError(
            "it has {width} x {height} pixels, more than Pillow's limit of {limit:,}; shrink it first", **values
        )
    return image


def check_sides(pixels: U8, file_format: PredictFormat) -> None:
    """Raises `ImageError` if no file of that format can have as many pixels along a side."""
    longest, limit = max(pixels.shape[:2]), LONGEST_SIDE[file_format]
    if longest > limit:
        values = {"longest": longest, "format": file_format.upper(), "limit": limit}
        raise ImageError("a side has {longest:,} pixels, and that of a {format} at most {limit:,}; shrink it", **values)


def encode(pixels: U8, file_format: PredictFormat, profile: bytes | None, comment: str = "") -> bytes:
    """Encode `(H, W)` grey, `(H, W, 3)` RGB or `(H, W, 4)` RGBA, with its ICC profile if it has one.

    `comment` is ASCII text for the file's metadata, which `read_comment` gives back; nothing is written if it is empty.
    A JPEG has quality 95 and full chroma: with half of it, a person's colours would be smeared into the background.
    """
    if file_format == "png":
        return _encode_png(pixels, profile, comment)
    buffer = io.BytesIO()
    image = Image.fromarray(pixels)
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0, icc_profile=profile, comment=comment)
    return buffer.getvalue()


def read_comment(path: Path) -> str:
    """The comment in a file that `encode` gave, or "". Raises `OSError` if it cannot be read, or is no PNG or JPEG."""
    with Image.open(path, formats=("PNG", "JPEG")) as image:
        comment = image.info.get(COMMENT, b"")
    return comment if isinstance(comment, str) else comment.decode("ascii", "replace")


def _encode_png(pixels: U8, profile: bytes | None, comment: str) -> bytes:
    if pixels.ndim == 3:
        order = cv2.COLOR_RGBA2BGRA if pixels.shape[2] == 4 else cv2.COLOR_RGB2BGR
        pixels = np.asarray(cv2.cvtColor(pixels, order), np.uint8)
    _, png = cv2.imencode(".png", pixels, _PNG_OPTIONS)
    # OpenCV writes no text, and fails at profiles that libpng does not like: cameras write such ones.
    buffer = io.BytesIO()
    buffer.write(png[:_PNG_HEAD].data)
    if profile:
        PngImagePlugin.putchunk(buffer, b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))
    if comment:
        PngImagePlugin.putchunk(buffer, b"tEXt", f"{COMMENT}\0{comment}".encode("ascii"))
    buffer.write(png[_PNG_HEAD:].data)
    return buffer.getvalue()
