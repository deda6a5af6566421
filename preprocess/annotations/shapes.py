"""Read the segmentations of an annotation file from JSON text into the parts that `preprocess.raster` draws.

A kernel reads ordinary segmentations, many at a time; Python decodes the others one by one, or says why they cannot be
drawn.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import Annotated, Any, NamedTuple, cast

import msgspec
import numpy as np
import numpy.typing as npt

from cache.machine import processors
from cache.messages import UserError
from preprocess.annotations.json_kernel import MOST_RUN, PADDING, count_signs, read_segmentations
from preprocess.raster import COORDINATE_LIMIT, POLYGON, RLE, box_polygon, decode_rle_string

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

BLOCK = 2048
"""JSON values that are joined at a time: they then fit in the processor's cache. All at once they would take as much
memory as the file, and the first use of fresh memory costs more than reading a number."""

_Offsets = tuple[I64, I64, I64, I64]
"""`(N + 1,)` first element of each of N segmentations in each array of their `Parts`."""


class UndrawableError(UserError):
    """A segmentation cannot be drawn; the message is a clause about its annotation."""


class Parts(NamedTuple):
    """The parts of one or more segmentations: `kind` and `length`, `(P,)`; `xy` and `counts` as in `Shapes`."""

    kind: U8
    length: I64
    xy: F64
    counts: I64


_NO_PARTS = Parts(np.empty(0, np.uint8), np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64))


class Shapes(NamedTuple):
    """The parts of N segmentations, as flat arrays.

    Attributes:
        parts: `(N,)` number of parts of each segmentation; 0 if it cannot be drawn.
        kind, start, length: `(P,)` parts, in the order of their segmentations; see `preprocess.raster`.
        xy: polygon coordinates, pixels.
        counts: RLE runs, pixels.
        reasons: why a segmentation cannot be drawn, by its number, ascending.
    """

    parts: I64
    kind: U8
    start: I64
    length: I64
    xy: F64
    counts: I64
    reasons: dict[int, str]


def read_shapes(values: Sequence[msgspec.Raw], height: I64, width: I64) -> Shapes:
    """Read segmentations in any of COCO's forms: polygons, boxes, compressed and uncompressed run-length codes.

    Ordinary ones are read by a kernel, in as many threads as there are processors; the others by Python, one by one.
    `values` are N segmentations as JSON; `height` and `width`, `(N,)`, are pixels of each one's image.
    """
    arrays, offsets, ordinary = _read_ordinary(values, height, width)
    parts, reasons = np.diff(offsets[0]), dict[int, str]()
    if not ordinary.all():
        odd = np.flatnonzero(~ordinary)
        found = []
        for number in odd.tolist():
            try:
                found.append(decode_segmentation(bytes(values[number]), int(height[number]), int(width[number])))
            except UndrawableError as error:
                found.append(_NO_PARTS)
                reasons[number] = str(error)
        parts[odd] = [len(shape.kind) for shape in found]
        arrays = _merge(arrays, offsets, ordinary, found)
    polygon = arrays.kind == POLYGON
    numbers, runs = np.where(polygon, 2 * arrays.length, 0), np.where(polygon, 0, arrays.length)
    start = np.where(polygon, np.cumsum(numbers) - numbers, np.cumsum(runs) - runs)
    return Shapes(parts=parts, start=start, reasons=reasons, **arrays._asdict())


def _read_ordinary(values: Sequence[msgspec.Raw], height: I64, width: I64) -> tuple[Parts, _Offsets, Flags]:
    """Read the ordinary ones of N segmentations.

    Returns:
        The arrays, in which the elements of the others are undefined; where each one's elements begin in the arrays;
        and `(N,)` whether each is ordinary.
    """
    is_code, ordinary = np.empty((2, len(values)), np.bool_)
    commas, brackets = np.empty((2, len(values)), np.int64)
    blocks = [slice(first, min(first + BLOCK, len(values))) for first in range(0, len(values), BLOCK)]

    def count(block: slice) -> None:
        text, start, size = _join(values[block])
        count_signs(text, start, size, commas[block], brackets[block])
        is_code[block] = text[start] == ord("{")

    def read(block: slice) -> None:
        text, start, _ = _join(values[block])  # once more: copying a text twice is cheaper than keeping it
        edges = slice(block.start, block.stop + 1)
        offsets = parts[edges], numbers[edges], runs[edges]
        sizes = height[block], width[block]
        read_segmentations(text, start, *sizes, *offsets, arrays.length, arrays.xy, arrays.counts, ordinary[block])

    with ThreadPoolExecutor(processors(), thread_name_prefix="segmentations") as pool:
        list(pool.map(count, blocks))  # which raises what a thread has raised
        sizes = np.where(is_code, 1, brackets - 1), np.where(is_code, 0, commas + 1), np.where(is_code, commas - 1, 0)
        parts, numbers, runs = (np.concatenate(([0], np.cumsum(each.clip(min=0)))) for each in sizes)
        arrays = Parts(
            kind=np.repeat(np.where(is_code, RLE, POLYGON).astype(np.uint8), np.diff(parts)),
            length=np.empty(parts[-1], np.int64),
            xy=np.empty(numbers[-1], np.float64),
            counts=np.empty(runs[-1], np.int64),
        )
        list(pool.map(read, blocks))
    return arrays, (parts, parts, numbers, runs), ordinary


def _join(values: Sequence[msgspec.Raw]) -> tuple[U8, I64, I64]:
    """N JSON values one behind the other, and `PADDING`: the bytes, and `(N,)` where each begins and its size."""
    size = np.fromiter(map(len, values), np.int64, len(values))
    return np.frombuffer(b"".join((*values, bytes(PADDING))), np.uint8), np.cumsum(size) - size, size


def _merge(arrays: Parts, offsets: _Offsets, ordinary: Flags, others: Sequence[Parts]) -> Parts:
    """The elements of the ordinary segmentations and of the others, in the order of the segmentations."""

    def merge(name: str, offset: I64) -> Array:
        array: Array = getattr(arrays, name)
        elements = [getattr(each, name) for each in others]
        before = np.diff(offset)
        after = before.copy()
        after[~ordinary] = [len(each) for each in elements]
        merged = np.empty(after.sum(), array.dtype)
        old = np.repeat(ordinary, after)
        merged[old] = array[np.repeat(ordinary, before)]
        merged[~old] = np.concatenate(elements)
        return merged

    return Parts(**{name: merge(name, offset) for name, offset in zip(Parts._fields, offsets, strict=True)})


class _Rle(msgspec.Struct):
    size: list[int]
    counts: list[Annotated[int, msgspec.Meta(ge=-MOST_RUN, le=MOST_RUN)]] | str


_Polygons = list[list[float]]
_SEGMENTATION = msgspec.json.Decoder(_Polygons | _Rle | None)
_FEWEST = 6
"""Numbers of a polygon: it has three points or more."""


def decode_segmentation(text: bytes, height: int, width: int) -> Parts:
    """Decode the JSON of one segmentation; its image has `height` x `width` pixels.

    What pycocotools draws is read: polygons, boxes, one run-length code or a list of them, and numbers that are text.
    So is a list of six or more numbers as one polygon, a polygon of pairs `[x, y]`, and a compressed code that is
    Python's text of bytes.

    Raises:
        UndrawableError: it has no shape, or one that makes no sense.
    """
    segmentation: _Polygons | list[_Rle] | _Rle | None
    try:
        segmentation = _SEGMENTATION.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        try:
            segmentation = _as_meant(json.loads(text))
        except UndrawableError:
            raise
        except (ValueError, OverflowError, RecursionError):
            raise UndrawableError("its segmentation is neither polygons nor an RLE: {error}", error=error) from None
    if segmentation is None:
        raise UndrawableError("it has no segmentation")
    if isinstance(segmentation, _Rle):
        segmentation = [segmentation]
    if segmentation and isinstance(segmentation[0], _Rle):
        codes = [_read_code(rle, height, width) for rle in cast("list[_Rle]", segmentation)]
        return _NO_PARTS._replace(
            kind=np.full(len(codes), RLE, np.uint8), length=np.array([*map(len, codes)]), counts=np.concatenate(codes)
        )
    polygons = _check_polygons(_join_points(cast(_Polygons, segmentation)))
    xy = np.array([*chain.from_iterable(polygons)])
    if not (np.abs(xy) <= COORDINATE_LIMIT).all():  # false for NaN, too
        raise UndrawableError("a coordinate is not a finite number of pixels")
    length = np.array([len(polygon) // 2 for polygon in polygons])
    return _NO_PARTS._replace(kind=np.full(len(polygons), POLYGON, np.uint8), length=length, xy=xy)


def _as_meant(value: Any) -> _Polygons | list[_Rle]:
    """Polygons or codes whose numbers are text or floats, or whose points are pairs. Raises `ValueError`."""
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise ValueError
    if value and all(isinstance(one, dict) for one in value):
        return [_as_rle(one) for one in value]
    if not any(isinstance(one, list) and one for one in value):
        if len(value) < _FEWEST or len(value) % 2:
            raise ValueError
        value = [value]
    polygons = []
    for polygon in value:
        if _are_points(polygon):
            if len(polygon) < _FEWEST // 2:  # four numbers would be taken for a box
                raise UndrawableError("its polygon has {count} points, fewer than 3", count=len(polygon))
            polygon = [*chain.from_iterable(polygon)]
        if not isinstance(polygon, list):
            raise ValueError
        polygons.append([_coordinate(number) for number in polygon])
    return polygons


def _are_points(polygon: Any) -> bool:
    """Whether it is a list of one or more pairs."""
    return (
        isinstance(polygon, list)
        and bool(polygon)
        and all(isinstance(point, list) and len(point) == 2 for point in polygon)
    )


def _join_points(polygons: _Polygons) -> _Polygons:
    """Three or more pairs of numbers, which are too few for polygons, are the points of one."""
    if len(polygons) >= _FEWEST // 2 and _are_points(polygons):
        return [[*chain.from_iterable(polygons)]]
    return polygons


def _coordinate(number: Any) -> float:
    """A number, also as text; NaN for null and for text that is none, and for what `blank_non_finite` has left."""
    if number is None or number == []:
        return math.nan
    if isinstance(number, list | dict):
        raise ValueError
    try:
        return float(number)
    except (ValueError, OverflowError):
        return math.nan


def _as_rle(value: dict[str, Any]) -> _Rle:
    size, counts = value.get("size"), value.get("counts")
    if not isinstance(size, list) or not isinstance(counts, list | str):
        raise ValueError
    return _Rle([*map(_whole, size)], counts if isinstance(counts, str) else [*map(_whole, counts)])


def _whole(number: Any) -> int:
    """A whole number, also as text. Raises `ValueError`."""
    if not isinstance(number, int | float | str) or not abs(float(number)) <= MOST_RUN or float(number) % 1:
        raise ValueError
    return int(float(number))


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
        raise UndrawableError("its polygon has {count} numbers, fewer than the 6 of a triangle", count=len(polygons[0]))
    if any(len(polygon) < 2 for polygon in polygons):
        raise UndrawableError("one of its polygons is empty")
    return [polygon[: len(polygon) // 2 * 2] for polygon in polygons]


def _read_code(rle: _Rle, height: int, width: int) -> I64:
    if rle.size[:2] != [height, width]:
        raise UndrawableError(
            "its RLE is for {size} pixels, its image has {image_size}", size=rle.size, image_size=[height, width]
        )
    if isinstance(rle.counts, str):
        written = rle.counts
        if re.fullmatch(r"b'[^']*'|b\"[^\"]*\"", written):  # no code ends in a quote
            with suppress(ValueError, SyntaxError):
                written = ast.literal_eval(written).decode("latin-1")
        text = np.frombuffer(written.encode(errors="replace"), np.uint8)
        buffer = np.empty(len(text), np.int64)
        runs = decode_rle_string(text, buffer)
        if runs < 0:
            raise UndrawableError("its compressed RLE is malformed")
        counts = buffer[:runs]
    else:
        counts = np.array(rle.counts, np.int64)
    if (counts < 0).any() or counts.sum() != height * width:
        raise UndrawableError(
            "its RLE covers {covered} pixels, its image has {pixels}", covered=counts.sum(), pixels=height * width
        )
    return counts
