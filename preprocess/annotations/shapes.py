"""Read the segmentations of an annotation file from JSON text into the parts that `preprocess.raster` draws.

A kernel reads ordinary segmentations, many at a time; Python decodes the others one by one, or says why they cannot be
drawn.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np

from cache.arrays import F64, I64, U8, Array, Flags
from cache.machine import processors
from cache.messages import UserError
from preprocess.annotations.dialects import said
from preprocess.annotations.json_kernel import MOST_RUN, PADDING, count_signs, read_segmentations
from preprocess.raster import COORDINATE_LIMIT, POLYGON, RLE, box_polygon, decode_rle_string

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
    """The parts of N segmentations, as flat arrays."""

    parts: I64  # `(N,)` number of parts of each segmentation; 0 if it cannot be drawn
    # kind, start, length: `(P,)` parts, in the order of their segmentations; see `preprocess.raster`.
    kind: U8
    start: I64
    length: I64
    xy: F64  # polygon coordinates, pixels
    counts: I64  # RLE runs, pixels
    reasons: dict[int, str]  # why a segmentation cannot be drawn, by its number, ascending


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


def _merge(arrays: Sequence[Array], offsets: _Offsets, ordinary: Flags, others: Sequence[Sequence[Array]]) -> Parts:
    """The elements of the ordinary segmentations and of the others, in the order of the segmentations."""
    merged = []
    for array, offset, elements in zip(arrays, offsets, zip(*others, strict=True), strict=True):
        before, sizes = np.diff(offset), [len(each) for each in elements]
        place = np.cumsum(before * ordinary)[~ordinary]  # among the elements of the ordinary ones
        kept = array[np.repeat(ordinary, before)]
        merged.append(np.insert(kept, np.repeat(place, sizes), np.concatenate(elements)))
    return Parts(*merged)


class _Rle(msgspec.Struct):
    size: list[int]
    counts: list[Annotated[int, msgspec.Meta(ge=-MOST_RUN, le=MOST_RUN)]] | str


_Polygons = list[list[float]]
_Points = Annotated[list[tuple[float, float]], msgspec.Meta(min_length=3)]  # two would be taken for a box
_Flat = Annotated[list[float], msgspec.Meta(min_length=6)]
_FORMS: tuple[Any, ...] = _Polygons | _Rle | None, list[_Rle], list[_Points], _Flat
_DECODERS = [msgspec.json.Decoder(form, strict=False) for form in _FORMS]  # which take numbers in text, too


def decode_segmentation(text: bytes, height: int, width: int) -> Parts:
    """Decode the JSON of one segmentation; its image has `height` x `width` pixels.

    What pycocotools draws is read: polygons, boxes, one run-length code or a list of them, and numbers that are text.
    So is a list of six or more numbers as one polygon, a polygon of pairs `[x, y]`, and a compressed code that is
    Python's text of bytes. Raises `UndrawableError`: it has no shape, or one that makes no sense.
    """
    segmentation = _decode(text)
    if not segmentation:
        raise UndrawableError("it has no segmentation, and a box alone makes no mask")
    if isinstance(segmentation, _Rle):
        segmentation = [segmentation]
    if isinstance(segmentation[0], _Rle):
        codes = [_read_code(rle, height, width) for rle in segmentation]
        return _NO_PARTS._replace(
            kind=np.full(len(codes), RLE, np.uint8), length=np.array([*map(len, codes)]), counts=np.concatenate(codes)
        )
    points = len(segmentation) >= 3 and all(isinstance(each, list) and len(each) == 2 for each in segmentation)
    if points or isinstance(segmentation[0], float):
        segmentation = [segmentation]
    polygons = _check_polygons([np.array(polygon, np.float64).ravel() for polygon in segmentation])
    xy = np.concatenate(polygons)
    if not (np.abs(xy) <= COORDINATE_LIMIT).all():  # false for NaN, too
        raise UndrawableError("a coordinate is not a finite number of pixels")
    length = np.array([len(polygon) // 2 for polygon in polygons])
    return _NO_PARTS._replace(kind=np.full(len(polygons), POLYGON, np.uint8), length=length, xy=xy)


def _decode(text: bytes) -> Any:
    """What a segmentation is in the first of `_FORMS` that it has."""
    text = re.sub(rb"(?<=[,[])\s*\[ +\]", b'"NaN"', text)  # of which `blank_non_finite` has made a list
    reasons = []
    for decoder in _DECODERS:
        try:
            return decoder.decode(text)
        except ValueError as error:
            reasons.append(error)
    reason = reasons[0] if text.startswith((b"[", b"{")) else said(memoryview(text))
    raise UndrawableError("its segmentation is neither polygons nor an RLE: {error}", error=reason)


def _check_polygons(polygons: list[F64]) -> list[F64]:
    """The polygons that are drawn: a box as its corners; of an odd number of coordinates the last is left out."""
    sizes = [len(polygon) for polygon in polygons]
    if not any(sizes):
        raise UndrawableError("its polygon is empty")
    # As in pycocotools, the first element decides whether all are boxes (x, y, width, height) or polygons.
    if sizes[0] == 4:
        if {*sizes} != {4}:
            raise UndrawableError("it mixes boxes and polygons")
        return [box_polygon(*box) for box in polygons]
    if sizes[0] < 4:
        raise UndrawableError("its polygon has {count} numbers, fewer than the 6 of a triangle", count=sizes[0])
    if min(sizes) < 2:
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
