"""Polygons to planes: our kernels, pycocotools and OpenCV against overwriting the planes; and which pixels differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from bench.baseline import CocoMasks, PolygonFills
from bench.ceilings import clear_planes, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.raster_fuzz import Parts, count_differences, draw_unions
from bench.report import Row
from bench.timing import Work
from cache.messages import Message, message
from cache.spec import CacheSpec
from preprocess.errors import DatasetError
from preprocess.raster import CROWD_IGNORE, fill_planes, fill_union, fill_union_bits
from preprocess.sources import Split, read_split

U8 = npt.NDArray[np.uint8]
U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]

TIMES = message("{name}: times pycocotools")
"""Name of a row, for `bytes` and for `bits`."""

SHARE = 0.5
"""Share of the usual time for each measurement: there are many here, and their calls are short."""

FUZZ_POLYGONS, FUZZ_SHORT, FUZZ_QUICK = 100_000, 10_000, 2_000
"""Random polygons that are compared; the second number where the photos are drawn."""

_PLANE, _PACKED, _BOTH = (
    message("overwriting the plane"),
    message("overwriting the packed plane"),
    message("overwriting both planes"),
)
_EACH = {
    "bytes": (message("union as bytes"), _PLANE),
    "bits": (message("union as packed bits"), _PACKED),
    "planes": (message("both planes as bytes"), _BOTH),
    "pycocotools": (message("union by pycocotools"), _PLANE),
    "cv2.fillPoly": (message("union by cv2.fillPoly"), _PLANE),
    message("cv2.fillPoly alone"): (message("union by cv2.fillPoly alone"), _PLANE),
}
_ALL = {
    message("all bytes"): (message("all unions as bytes"), _PLANE),
    message("all bits"): (message("all unions as packed bits"), _PACKED),
}
"""What is measured, photo by photo and in one call: name of the row, and the limit."""

_RATIOS = {
    Message(TIMES, name="bytes"): ("bytes", "pycocotools"),
    Message(TIMES, name="bits"): ("bits", "pycocotools"),
    message("bytes: times cv2.fillPoly"): ("bytes", "cv2.fillPoly"),
    message("bytes: times cv2.fillPoly alone"): ("bytes", message("cv2.fillPoly alone")),
    Message(TIMES, name=message("all bytes")): (message("all bytes"), "pycocotools"),
    Message(TIMES, name=message("all bits")): (message("all bits"), "pycocotools"),
}
_PEERS = {peer for _, peer in _RATIOS.values()}


def raster_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Planes of each photo at native size, in one thread; a union is that of all annotations."""
    with thread_pool(1):  # OpenCV, too, draws in one thread
        found = setup.measure(_works(material.coco, material.split), share=SHARE)
    for rates, calls in ((_EACH, message("a call for each photo")), (_ALL, message("one call for all photos"))):
        described = message(
            "{photos_name} at native size, 1 thread, {calls}", photos_name=material.photos_name, calls=calls
        )
        row = partial(Row.measured, suite="raster", setup=described)
        for which, (name, limit) in rates.items():
            ours = which not in _PEERS
            yield row(found[which], name=name, limit=found[limit], limit_name=limit, unit="images/s", ours=ours)
        for name, (which, peer) in _RATIOS.items():
            if which in rates:
                yield row(found[which].over(found[peer]), name=name, unit="times")
    yield from _difference_rows(setup, material)


def _works(coco: Path, split: Split) -> dict[str, Work]:
    """What is measured, and the limits. All arguments are made beforehand: only the drawing is measured."""
    table, rows = split.table, split.rows
    height, width = table.height[rows], table.width[rows]
    shapes = list(zip(height.tolist(), width.tolist(), strict=True))
    packed = [(tall, -(-wide // 64)) for tall, wide in shapes]
    first, last = table.first[rows], table.first[np.add(rows, 1)]
    first_part, last_part = table.part_start[first], table.part_start[last]
    parts = (table.kind, table.start, table.length, table.xy, table.counts)
    # One buffer for all photos, as large as the largest needs it.
    most = max(tall * wide for tall, wide in shapes)
    person, ignore = np.empty(most, np.uint8), np.empty(most, np.uint8)
    words = np.empty(max(tall * wide for tall, wide in packed), np.uint64)

    byte_calls, bit_calls, plane_calls = list[tuple[Any, ...]](), list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    for number, (shape, packed_shape) in enumerate(zip(shapes, packed, strict=True)):
        out, other = (plane[: shape[0] * shape[1]].reshape(shape) for plane in (person, ignore))
        bits = words[: packed_shape[0] * packed_shape[1]].reshape(packed_shape)
        span = int(first_part[number]), int(last_part[number])
        byte_calls.append((*parts, *span, out))
        bit_calls.append((*parts, *span, shape[1], bits))
        annotations = int(first[number]), int(last[number])
        plane_calls.append((*annotations, table.part_start, table.iscrowd, *parts, CROWD_IGNORE, out, other))

    # The peers begin with the JSON's lists; the last one with integer points, where only the drawing is left.
    masks, fills = CocoMasks(coco, split), PolygonFills(split, rounded=False)
    fills_alone = PolygonFills(split, rounded=True)
    numbers = [(number,) for number in range(len(rows))]
    works = {
        "bytes": _each(fill_union, byte_calls),
        "bits": _each(fill_union_bits, bit_calls),
        "planes": _each(fill_planes, plane_calls),
        "pycocotools": _each(masks.union, numbers),
        "cv2.fillPoly": _each(fills.union, numbers),
        message("cv2.fillPoly alone"): _each(fills_alone.union, numbers),
        message("all bytes"): lambda: _unions(parts, first_part, last_part, height, width, person),
        message("all bits"): lambda: _unions_bits(parts, first_part, last_part, height, width, words),
    }
    return {
        **{which: Work(run=run, items=len(rows)) for which, run in works.items()},
        _PLANE: clear_planes(shapes, 1),
        _PACKED: clear_planes([(tall, 8 * wide) for tall, wide in packed], 1),
        _BOTH: clear_planes(shapes, 2),
    }


def _each(draw: Callable[..., object], calls: Sequence[tuple[Any, ...]]) -> Callable[[], None]:
    def run() -> None:
        for arguments in calls:
            draw(*arguments)

    return run


@njit(nogil=True)
def _unions(parts: Parts, first: I64, last: I64, height: I64, width: I64, buffer: U8) -> None:
    """`fill_union` for all photos, one after another into the same buffer."""
    for photo in range(len(first)):
        out = buffer[: height[photo] * width[photo]].reshape(height[photo], width[photo])
        fill_union(*parts, first[photo], last[photo], out)


@njit(nogil=True)
def _unions_bits(parts: Parts, first: I64, last: I64, height: I64, width: I64, buffer: U64) -> None:
    """`fill_union_bits` for all photos, one after another into the same buffer."""
    for photo in range(len(first)):
        words = (width[photo] + 63) // 64
        out = buffer[: height[photo] * words].reshape(height[photo], words)
        fill_union_bits(*parts, first[photo], last[photo], width[photo], out)


def _difference_rows(setup: Setup, material: Material) -> Iterator[Row]:
    splits = [material.split]
    with suppress(DatasetError):  # a dataset without that split, or nobody in it
        splits.append(read_split(material.coco, "val", CacheSpec(side=setup.side, limit=setup.photos)))
    photos = sum(len(split.rows) for split in splits)
    polygons = FUZZ_QUICK if setup.config.quick else FUZZ_SHORT if material.drawn else FUZZ_POLYGONS
    found = [compare_photos(material.coco, split) for split in splits]
    for name, work, (differing, compared) in (
        ("photos", message("{photos} photos, unions and both planes", photos=photos), np.sum(found, axis=0).tolist()),
        ("fuzz", message("{polygons:,} fuzz polygons, unions", polygons=polygons), count_differences(polygons)),
    ):
        yield Row.measured(
            float(differing),
            name=message("{name}: unlike pycocotools", name=name),
            unit="pixels",
            suite="raster",
            setup=message("{work}, as bytes and as packed bits", work=work),
            note=message("of {compared:,} pixels", compared=compared),
        )


def compare_photos(coco: Path, split: Split) -> tuple[int, int]:
    """Draw each photo of a split in every way there is.

    Returns:
        Pixels that differ from pycocotools', and all pixels that were compared.
    """
    table, masks = split.table, CocoMasks(coco, split)
    parts = (table.kind, table.start, table.length, table.xy, table.counts)
    differing = compared = 0
    for number, row in enumerate(split.rows):
        shape = int(table.height[row]), int(table.width[row])
        first, last = int(table.first[row]), int(table.first[row + 1])
        person, ignore = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        fill_planes(first, last, table.part_start, table.iscrowd, *parts, CROWD_IGNORE, person, ignore)
        ours = (*draw_unions(parts, int(table.part_start[first]), int(table.part_start[last]), *shape), person, ignore)
        theirs = (masks.union(number), masks.union(number), *masks.draw(number))
        differing += sum(int((mine != other).sum()) for mine, other in zip(ours, theirs, strict=True))
        compared += 4 * person.size
    return differing, compared
