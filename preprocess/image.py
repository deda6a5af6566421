"""Decode image files, encode JPEGs, fit photos and planes into the square of a cache, and restore masks from it."""

from __future__ import annotations

import functools
import io
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
import simplejpeg
from PIL import ExifTags, Image, UnidentifiedImageError, features

from cache import files
from cache.arrays import F32, U8
from cache.choices import Fit
from cache.messages import first_line, install, listed, message, system_reason
from cache.record import pack_plane
from preprocess.errors import ImageError
from preprocess.jpeg import JPEG_START, count_scans, decode_jpeg, without_gap
from preprocess.resize import shrink_image, shrink_plane

MOST_BYTES = 1 << 30  # larger files are not read: at Pillow's limit of pixels, RGBA of 16 bits has 716 MB

MOST_SCANS = 200
"""Scans of a JPEG that are decoded: encoders write some ten, and each costs 0.05 s at Pillow's limit of pixels."""

_NO_MEMORY = message("there is not enough free memory to decode it")

_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000")  # foreign bytes reach no other decoder
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"})

SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"),
    *(".gif", ".ppm", ".jp2", ".j2k", ".avif", ".heic", ".heif"),
)
"""Suffixes of the files in a folder that count as photos."""

_TURNS = {
    1: (1, 1, False),
    2: (1, -1, False),
    3: (-1, -1, False),
    4: (-1, 1, False),
    5: (1, 1, True),
    6: (-1, 1, True),
    7: (-1, -1, True),
    8: (1, -1, True),
}
"""For each EXIF orientation the steps along rows and columns, and whether these are swapped afterwards."""


class ImageHead(NamedTuple):
    """What the head of an image file says."""

    # height, width: size of the stored image, in pixels.
    height: int
    width: int
    orientation: int  # EXIF's, 1 to 8: how the stored pixels have to be turned or mirrored to be upright; 1: not at all

    @property
    def upright_size(self) -> tuple[int, int]:
        """Height and width of the upright photo."""
        return (self.width, self.height) if _TURNS[self.orientation][2] else (self.height, self.width)


def read_rgb(path: PurePath) -> U8:
    """Read an image file by `read_file` and decode it by `decode_rgb`."""
    return decode_rgb(read_file(path))


def read_file(path: PurePath) -> bytes:
    """Read the bytes of an image file.

    Raises `ImageError`: it is missing, not a file, unreadable, empty or too large. `StorageError`: it is in object
    storage, which cannot be read. That says nothing about the image.
    """
    try:
        if isinstance(path, Path):
            check_file(path)
        data = files.read(path)
    except FileNotFoundError:
        if isinstance(path, Path) and path.is_symlink():
            raise ImageError("it is a link to a file that is missing") from None
        raise ImageError("the image file is missing") from None
    except OSError as error:
        raise ImageError("the image file cannot be read: {reason}", reason=system_reason(error)) from None
    except MemoryError:
        raise ImageError("the image file is larger than the free memory") from None
    if not data:
        raise ImageError("the image file is empty")
    return data


def check_file(path: Path) -> None:
    """Raises `ImageError` if it is no file, whose opening may wait for a writer, or one that is too large."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):
        raise ImageError("it is a folder, a pipe or a device, not an image file")
    if state.st_size > MOST_BYTES:
        raise ImageError("the image file has more than {limit:,} bytes; save it smaller", limit=MOST_BYTES)


def check_scans(data: bytes) -> None:
    """Raises `ImageError` if decoding a JPEG would take minutes: a small file may have thousands of empty scans."""
    if data.startswith(JPEG_START) and (scans := count_scans(data, MOST_SCANS)) > MOST_SCANS:
        raise ImageError("the JPEG has {scans} scans, more than {limit}; save it anew", scans=scans, limit=MOST_SCANS)


def read_head(data: bytes) -> ImageHead:
    """Read the head of an image file, without decoding a pixel. Raises `ImageError`: as `open_image`."""
    with open_image(io.BytesIO(data)) as image:
        return ImageHead(image.height, image.width, _orientation(image))


@functools.cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read: AVIF where Pillow has its decoder, HEIF where pillow-heif is."""
    avif = ("AVIF",) if "avif" in features.modules and features.check_module("avif") else ()
    try:
        import pillow_heif
    except ImportError:
        return (*_FORMATS, *avif)
    pillow_heif.register_heif_opener()
    return (*_FORMATS, *avif, "HEIF")


def open_image(file: BinaryIO) -> Image.Image:
    """Read the head of an image file, without decoding a pixel.

    Raises `ImageError`: it is no image of a known format, its head is damaged, or it has more pixels than Pillow takes.
    """
    start = file.read(3)
    file.seek(0)
    if start.startswith(JPEG_START) and start[2:] != b"\xff":
        file = io.BytesIO(without_gap(file.read()))
    try:
        return Image.open(file, formats=image_formats())
    except UnidentifiedImageError:
        file.seek(0)
        raise _unknown(file.read(64)) from None
    except Image.DecompressionBombError:
        raise ImageError(
            "it has more than twice Pillow's limit of {limit:,} pixels; shrink it first", limit=Image.MAX_IMAGE_PIXELS
        ) from None
    except Exception as error:  # damaged bytes may raise anything: Pillow promises no kind of error
        reason = first_line(error)
        if start.startswith(JPEG_START):
            raise ImageError("the JPEG is damaged: {reason}", reason=reason) from None
        raise ImageError("the image is damaged: {reason}", reason=reason) from None


def _unknown(head: bytes) -> ImageError:
    """What is wrong with a file of which no decoder knows the first bytes."""
    known = image_formats()
    brand = head[8:12] if head[4:8] == b"ftyp" else b""
    if brand and (b"avif" in head or b"avis" in head) and "AVIF" not in known:
        return ImageError(
            "it is an AVIF image, which the installed Pillow cannot read; pip install 'pillow>=11.3', or save it as "
            "PNG or JPEG"
        )
    if brand in _HEIF_BRANDS and "HEIF" not in known:
        return ImageError("it is a HEIC photo, which wants the package pillow-heif; {install}", install=install("heic"))
    return ImageError("it is not a {formats} image", formats=listed(known, "or"))


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a photo whose head is read."""
    # To look for it elsewhere than in EXIF takes longer than all the rest. The tag of a TIFF and the turn of a HEIC are
    # part of the format: their sizes and pixels are those of the upright photo.
    if "exif" not in image.info or image.format in ("TIFF", "HEIF"):
        return 1
    return exif_orientation(image)


def exif_orientation(image: Image.Image) -> int:
    """The orientation that EXIF or, in some formats, XMP has for an image; of a TIFF that is loaded 1: it is turned."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF is no reason to refuse a photo
        return 1
    return found if found in _TURNS else 1


def decode_rgb(data: bytes) -> U8:
    """Decode the bytes of an image file as `(H, W, 3)` RGB, in stored orientation: EXIF rotation is not applied.

    A JPEG is decoded strictly, see `decode_jpeg`; all else as `load_rgb` does. Raises `ImageError`: it is cut short or
    no image, or the decoder fails otherwise.
    """
    check_scans(data)
    if data.startswith(JPEG_START):
        try:
            return decode_jpeg(data)
        except ValueError as error:
            reason = str(error)
        except MemoryError as error:
            raise ImageError(_NO_MEMORY) from error
        if "colorspace" not in reason.lower() and "conver" not in reason.lower():
            raise ImageError("the JPEG is damaged: {reason}", reason=reason)
    with open_image(io.BytesIO(data)) as image:
        return load_rgb(image)


def load_rgb(image: Image.Image) -> U8:
    """Decode an image that `open_image` gave as `(H, W, 3)` RGB, in stored orientation; of several pictures the first.

    Grey, palette and CMYK become RGB, 16 bits become 8 (the upper ones), and transparent pixels are laid on white.
    Raises `ImageError`: it is damaged, or its numbers have no known range.
    """
    try:
        image.load()
        return np.array(_to_rgb(image))
    except ImageError:
        raise
    except MemoryError as error:
        raise ImageError(_NO_MEMORY) from error
    except Exception as error:  # see `open_image`
        raise ImageError("the image is damaged: {reason}", reason=first_line(error)) from None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.min(initial=0) < 0 or deep.max(initial=0) > 0xFFFF:
            raise ImageError("its pixels are 32-bit numbers, of which no range is known; convert it to 8 or 16 bits")
        grey = (deep >> 8).astype(np.uint8)
        grey[deep == image.info.get("transparency", -1)] = 255  # a colour of all 16 bits, laid on white
        image = Image.fromarray(grey)
    elif image.mode == "F":
        raise ImageError("its pixels are floating-point numbers, of which no range is known; convert it to 8 bits")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return page.convert("RGB")


def turn_upright(image_HW3: U8, orientation: int) -> U8:
    """Turn stored pixels as their EXIF orientation, 1 to 8, says; gives a contiguous array."""
    rows, columns, swap = _TURNS[orientation]
    turned = image_HW3[::rows, ::columns]
    return np.ascontiguousarray(turned.swapaxes(0, 1) if swap else turned)


def encode_jpeg(image_HW3: U8, quality: int) -> U8:
    """Encode `(H, W, 3)` RGB as a JPEG without chroma subsampling (4:4:4); returns its `(n,)` bytes."""
    data = simplejpeg.encode_jpeg(np.ascontiguousarray(image_HW3), quality, "RGB", "444")
    return np.frombuffer(data, np.uint8)


@contextmanager
def opencv_threads(number: int) -> Iterator[None]:
    """Within the block, OpenCV uses this number of threads in the whole process; 1 where images are parallel work."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(number)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Suppress Pillow's warnings about what is an error or harmless here. Process-wide: not for use in threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


class FitBox(NamedTuple):
    """The position and size of the photo within the square, in pixels."""

    x: int
    y: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The box as row and column slices."""
        return slice(self.y, self.y + self.height), slice(self.x, self.x + self.width)


def fit_box(height: int, width: int, side: int, fit: Fit, across: int = 0) -> FitBox:
    """The box that a photo of `height` x `width` pixels fills in a square of `side`, or in `side` x `across` pixels.

    `letterbox` keeps the aspect (the free side is rounded to the nearest pixel, at least 1) and centres, with the odd
    pixel below or to the right; `stretch` fills the square.
    """
    across = across or side
    if fit == "stretch":
        return FitBox(0, 0, across, side)
    inner, outer = (height, side) if side * width <= across * height else (width, across)  # what limits its size
    inner_width = max(1, (2 * width * outer + inner) // (2 * inner))  # round half up, in integers
    inner_height = max(1, (2 * height * outer + inner) // (2 * inner))
    return FitBox((across - inner_width) // 2, (side - inner_height) // 2, inner_width, inner_height)


def place_image(image_HW3: U8, box: FitBox, square_SS3: U8) -> None:
    """Resize a photo into its box of `square_SS3` (C-contiguous), wholly written; the padding is black.

    The pixels are those of `cv2.resize` with `INTER_AREA` when it shrinks, with `INTER_LINEAR` when it grows.
    """
    if box.width * box.height < square_SS3.shape[0] * square_SS3.shape[1]:
        square_SS3[:] = 0
    height, width = image_HW3.shape[:2]
    if box.width <= width and box.height <= height:
        shrink_image(image_HW3, square_SS3, *box)
    else:
        square_SS3[box.slices] = cv2.resize(image_HW3, box[2:], interpolation=cv2.INTER_LINEAR)


def place_plane(plane_HW: U8, box: FitBox, bits_SB: U8, padding: int) -> int:
    """Resize a plane of 0 and 1 into its box of a packed plane, wholly written; `padding` fills the rest.

    A pixel is set when at least half of its area is: `cv2.resize(255 * plane, INTER_AREA) >= 128`. `plane_HW` is uint8;
    `bits_SB` is `(S, S / 8)` uint8, C-contiguous, packed as in `cache.record`. Returns the number of pixels that are
    set in the box.
    """
    height, width = plane_HW.shape
    if box.width <= width and box.height <= height:
        bits_SB[:] = 255 * padding
        return shrink_plane(plane_HW, bits_SB, *box)
    square = np.full((len(bits_SB), len(bits_SB)), padding, np.uint8)
    square[box.slices] = cv2.resize(plane_HW * np.uint8(255), box[2:], interpolation=cv2.INTER_AREA) >= 128
    bits_SB[:] = pack_plane(square).reshape(bits_SB.shape)
    return int(square[box.slices].sum())


def compile_resizing() -> None:
    """Compile the kernels of `place_image` and `place_plane`, by a tiny picture."""
    box, plane = fit_box(50, 70, 32, "letterbox"), np.zeros((50, 70), np.uint8)
    photo = decode_rgb(encode_jpeg(np.dstack((plane, plane, plane)), 90).tobytes())  # as photos of a dataset are
    place_image(photo, box, np.empty((32, 32, 3), np.uint8))
    place_plane(plane, box, np.empty((32, 4), np.uint8), padding=0)


def restore_mask(mask_SS: F32, box: FitBox, height: int, width: int) -> F32:
    """The inverse of the fit for a soft mask: cut the box out and resize it to the photo's `(height, width)`."""
    inner = np.ascontiguousarray(mask_SS[box.slices])
    restored = cv2.resize(inner, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(restored, np.float32)
