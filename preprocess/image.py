"""Image file -> RGB pixels, and pixels -> JPEG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from cache import files
from preprocess.errors import ImageError

U8 = npt.NDArray[np.uint8]

_JPEG_START = b"\xff\xd8\xff"


def read_rgb(path: PurePath) -> U8:
    """Read and decode an image file. See `read_file` and `decode_rgb`."""
    return decode_rgb(read_file(path))


def read_file(path: PurePath) -> bytes:
    """Read the bytes of an image file.

    Raises:
        ImageError: it is missing, unreadable or empty.
        StorageError: it is in object storage, which cannot be read. That says nothing of the image.
    """
    try:
        data = files.read(path)
    except FileNotFoundError:
        raise ImageError("the image file is missing") from None
    except OSError as error:
        raise ImageError(f"the image file cannot be read: {error.strerror}") from None
    if not data:
        raise ImageError("the image file is empty")
    return data


def decode_rgb(data: bytes) -> U8:
    """Decode the bytes of an image file as `(H, W, 3)` RGB, in stored orientation: EXIF rotation is not applied.

    COCO's annotations are in stored pixels. Grayscale becomes RGB; 16 bits become 8; alpha is dropped.

    Raises:
        ImageError: it is cut short or no image.
    """
    if data.startswith(_JPEG_START):
        try:
            # Strict: a truncated JPEG is an error here, where OpenCV returns a half-gray picture.
            pixels: U8 = simplejpeg.decode_jpeg(data, "RGB", strict=True)
            return pixels
        except ValueError as error:
            reason = str(error)
        if "colorspace" not in reason.lower() and "conver" not in reason.lower():
            raise ImageError(f"the JPEG is damaged: {reason}")
        # CMYK and the like go through OpenCV, which converts them.
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None:
        raise ImageError("the file is not an image that OpenCV can read")
    return np.asarray(decoded, np.uint8)


def encode_jpeg(image_HW3: U8, quality: int) -> U8:
    """Encode `(H, W, 3)` RGB as a JPEG without chroma subsampling (4:4:4); returns its `(n,)` bytes."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image_HW3), quality, "RGB", "444")
    return np.frombuffer(data, np.uint8)


@contextmanager
def opencv_threads(number: int) -> Iterator[None]:
    """Within the block, OpenCV uses so many threads in all of the process; 1 where images are the parallel work."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(number)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
