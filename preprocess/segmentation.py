"""Decode one segmentation of COCO's JSON, in any of its forms; or say why it cannot be drawn."""

from __future__ import annotations

from itertools import chain
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from cache.messages import UserError
from preprocess.raster import COORDINATE_LIMIT, POLYGON, RLE, box_polygon, decode_rle_string
from preprocess.segmentation_text import MOST_RUN

I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]


class UndrawableError(UserError):
    """A segmentation cannot be drawn; the message is a clause about its annotation."""


class Shape(NamedTuple):
    """The parts of one segmentation: kind and length of each; all their coordinates, and all their runs, in pixels."""

    kind: list[int]
    length: list[int]
    xy: F64
    counts: I64


NO_SHAPE = Shape([], [], np.empty(0), np.empty(0, np.int64))


class _Rle(msgspec.Struct):
    size: list[int]
    counts: list[Annotated[int, msgspec.Meta(ge=-MOST_RUN, le=MOST_RUN)]] | str


_SEGMENTATION = msgspec.json.Decoder(list[list[float]] | _Rle | None)


def decode_segmentation(text: bytes, height: int, width: int) -> Shape:
    """Decode a segmentation.

    Args:
        text: JSON.
        height, width: pixels of its image.

    Raises:
        UndrawableError: it has no shape, or one that makes no sense.
    """
    try:
        segmentation = _SEGMENTATION.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UndrawableError("its segmentation is neither polygons nor an RLE: {error}", error=error) from None
    if segmentation is None:
        raise UndrawableError("it has no segmentation")
    if isinstance(segmentation, _Rle):
        counts = _read_code(segmentation, height, width)
        return NO_SHAPE._replace(kind=[RLE], length=[len(counts)], counts=counts)
    polygons = _check_polygons(segmentation)
    xy = np.array([*chain.from_iterable(polygons)])
    if not (np.abs(xy) <= COORDINATE_LIMIT).all():  # false for NaN, too
        raise UndrawableError("a coordinate is not a finite number of pixels")
    lengths = [len(polygon) // 2 for polygon in polygons]
    return NO_SHAPE._replace(kind=[POLYGON] * len(polygons), length=lengths, xy=xy)


def _check_polygons(polygons: list[list[float]]) -> list[list[float]]:
    """The polygons that are drawn: a box as its corners; of an odd number of coordinates the last is left out."""
    if not any(polygons):
        raise UndrawableError("its polygon is empty")
    # As in pycocotools, the first element decides whether all are boxes (x, y, width, height) or polygons.
    if len(polygons[0]) == 4:
        if any(len(box) != 4 for box in polygons):
            raise UndrawableError("it mixes boxes and polygons")
        return [box_polygon(*box).tolist() for box in polygons]
    if len(polygons[0]) < 4:
        raise UndrawableError(
            "its polygon has {polygons_count} numbers, fewer than the 6 of a triangle", polygons_count=len(polygons[0])
        )
    if any(len(polygon) < 2 for polygon in polygons):
        raise UndrawableError("one of its polygons is empty")
    return [polygon[: len(polygon) // 2 * 2] for polygon in polygons]


def _read_code(rle: _Rle, height: int, width: int) -> I64:
    if rle.size != [height, width]:
        raise UndrawableError(
            "its RLE is for {size} pixels, its image has {value}", size=rle.size, value=[height, width]
        )
    if isinstance(rle.counts, str):
        text = np.frombuffer(rle.counts.encode(), np.uint8)
        buffer = np.empty(len(text), np.int64)
        runs = decode_rle_string(text, buffer)
        if runs < 0:
            raise UndrawableError("its compressed RLE is malformed")
        counts = buffer[:runs]
    else:
        counts = np.array(rle.counts, np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise UndrawableError(
            "its RLE covers {sum} pixels, its image has {height}", sum=counts.sum(), height=height * width
        )
    return counts
