"""Decode one segmentation of COCO's JSON, in any of its forms; or say why it cannot be drawn.

Read all segmentations of an annotation file from JSON text into the parts that `preprocess.raster` draws.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from cache.messages import UserError
from preprocess.annotations.json_kernel import MOST_RUN, PADDING, count_signs, read_segmentations
from preprocess.raster import COORDINATE_LIMIT, POLYGON, RLE, box_polygon, decode_rle_string

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


U8 = npt.NDArray[np.uint8]
Flags = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]

BLOCK = 2048
"""JSON values that are joined at a time: they then fit in the processor's cache. All at once they would take as much
memory as the file, and the first use of fresh memory costs more than reading a number."""


class Shapes(NamedTuple):
    """The parts of N segmentations, as flat arrays.

    Attributes:
        parts: `(N,)` parts of each segmentation; 0 if it cannot be drawn.
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

    Args:
        values: N segmentations, as JSON.
        height, width: `(N,)` pixels of each one's image.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="segmentations") as pool:
        layout = _Layout.of(values, pool)
        arrays, ordinary = _read_ordinary(values, height, width, layout, pool)
    parts, reasons = np.diff(layout.parts), dict[int, str]()
    if not ordinary.all():
        odd = np.flatnonzero(~ordinary)
        found = []
        for number in odd.tolist():
            try:
                found.append(decode_segmentation(bytes(values[number]), int(height[number]), int(width[number])))
            except UndrawableError as error:
                found.append(NO_SHAPE)
                reasons[number] = str(error)
        parts[odd] = [len(shape.kind) for shape in found]
        arrays = _merge(arrays, layout, ordinary, found)
    polygon = arrays.kind == POLYGON
    numbers, runs = np.where(polygon, 2 * arrays.length, 0), np.where(polygon, 0, arrays.length)
    start = np.where(polygon, np.cumsum(numbers) - numbers, np.cumsum(runs) - runs)
    return Shapes(parts=parts, start=start, reasons=reasons, **arrays._asdict())


def _in_blocks(pool: ThreadPoolExecutor, work: Callable[[slice], None], number: int) -> None:
    """Do `number` segmentations, a block of them at a time, in threads; raises what a thread has raised."""
    list(pool.map(work, (slice(first, min(first + BLOCK, number)) for first in range(0, number, BLOCK))))


def _join(values: Sequence[msgspec.Raw]) -> tuple[U8, I64, I64]:
    """N JSON values one behind the other, and `PADDING`: the bytes, and `(N,)` where each begins and its size."""
    size = np.fromiter(map(len, values), np.int64, len(values))
    return np.frombuffer(b"".join((*values, bytes(PADDING))), np.uint8), np.cumsum(size) - size, size


class _Arrays(NamedTuple):
    """The arrays of `Shapes` that do not follow from others."""

    kind: U8
    length: I64
    xy: F64
    counts: I64


class _Layout(NamedTuple):
    """Where the elements of N segmentations lie in the arrays, if all are ordinary.

    Attributes:
        code: `(N,)` whether it is a run-length code.
        parts, numbers, runs: `(N + 1,)` first element of each in kind and length, in xy, and in counts.
    """

    code: Flags
    parts: I64
    numbers: I64
    runs: I64

    @classmethod
    def of(cls, values: Sequence[msgspec.Raw], pool: ThreadPoolExecutor) -> _Layout:
        """Lay out segmentations before they are read, by their numbers of commas and brackets."""
        code = np.empty(len(values), np.bool_)
        commas, brackets = np.empty((2, len(values)), np.int64)

        def count(mine: slice) -> None:
            text, start, size = _join(values[mine])
            count_signs(text, start, size, commas[mine], brackets[mine])
            code[mine] = text[start] == ord("{")

        _in_blocks(pool, count, len(values))
        sizes = np.where(code, 1, brackets - 1), np.where(code, 0, commas + 1), np.where(code, commas - 1, 0)
        return cls(code, *(np.concatenate(([0], np.cumsum(each.clip(min=0)))) for each in sizes))


def _read_ordinary(
    values: Sequence[msgspec.Raw], height: I64, width: I64, layout: _Layout, pool: ThreadPoolExecutor
) -> tuple[_Arrays, Flags]:
    """Read the ordinary ones, and return `(N,)` which they are; the elements of others are undefined."""
    kinds = np.where(layout.code, RLE, POLYGON).astype(np.uint8)
    arrays = _Arrays(
        kind=np.repeat(kinds, np.diff(layout.parts)),
        length=np.empty(layout.parts[-1], np.int64),
        xy=np.empty(layout.numbers[-1], np.float64),
        counts=np.empty(layout.runs[-1], np.int64),
    )
    ordinary = np.empty(len(values), np.bool_)

    def read(mine: slice) -> None:
        # Joined once more: copying a text twice is cheaper than keeping it.
        text, start, _ = _join(values[mine])
        edges = slice(mine.start, mine.stop + 1)
        read_segmentations(
            text,
            start,
            height[mine],
            width[mine],
            layout.parts[edges],
            layout.numbers[edges],
            layout.runs[edges],
            arrays.length,
            arrays.xy,
            arrays.counts,
            ordinary[mine],
        )

    _in_blocks(pool, read, len(values))
    return arrays, ordinary


def _merge(arrays: _Arrays, layout: _Layout, ordinary: Flags, others: Sequence[Shape]) -> _Arrays:
    """The elements of those that are ordinary, and of the others, in the order of the segmentations."""

    def merge(array: Array, offsets: I64, sizes: list[int], elements: Array | list[int]) -> Array:
        before = np.diff(offsets)
        after = before.copy()
        after[~ordinary] = sizes
        merged = np.empty(after.sum(), array.dtype)
        old = np.repeat(ordinary, after)
        merged[old] = array[np.repeat(ordinary, before)]
        merged[~old] = elements
        return merged

    kind, length, xy, counts = zip(*others, strict=True)
    parts = [len(one) for one in kind]
    return _Arrays(
        kind=merge(arrays.kind, layout.parts, parts, [*chain.from_iterable(kind)]),
        length=merge(arrays.length, layout.parts, parts, [*chain.from_iterable(length)]),
        xy=merge(arrays.xy, layout.numbers, [len(one) for one in xy], np.concatenate(xy)),
        counts=merge(arrays.counts, layout.runs, [len(one) for one in counts], np.concatenate(counts)),
    )
