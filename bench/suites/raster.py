"""The suite `raster`: polygons to planes by our kernels, pycocotools and OpenCV, against overwriting the planes.

That no pixel differs from what pycocotools draws is shown by `tests/test_preprocess_fuzz.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from bench.baseline import CocoMasks, PolygonFills, image_shapes
from bench.ceilings import clear_planes, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.report import Row, times_name
from bench.timing import Work
from cache.messages import joined, message
from preprocess.build.plan import Split
from preprocess.raster import CROWD_IGNORE, fill_planes, fill_union, fill_union_bits

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Parts = tuple[U8, I64, I64, F64, I64]
"""Kind, start, length, xy and counts, see the head of `preprocess.raster`."""

SHARE = 0.5
"""Share of the usual time for each measurement: there are many here, and their calls are short."""

_PLANE = message("overwriting the plane")
_PACKED = message("overwriting the packed plane")
_BOTH = message("overwriting both planes")
_OPENCV, _ALL_BYTES, _ALL_BITS = message("cv2.fillPoly alone"), message("all bytes"), message("all bits")
_EACH = {
    "bytes": (message("union as bytes"), _PLANE),
    "bits": (message("union as packed bits"), _PACKED),
    "planes": (message("both planes as bytes"), _BOTH),
    "pycocotools": (message("union by pycocotools"), _PLANE),
    _OPENCV: (message("union by cv2.fillPoly alone"), _PLANE),
}
_ALL = {
    _ALL_BYTES: (message("all unions as bytes"), _PLANE),
    _ALL_BITS: (message("all unions as packed bits"), _PACKED),
}
"""What is measured, photo by photo and in one call: name of the row, and the limit."""

_PEERS = {"pycocotools": ("bytes", "bits", _ALL_BYTES, _ALL_BITS), _OPENCV: ("bytes",)}
"""Which of our rates are compared with each of the peers."""


def raster_rows(setup: Setup, material: Material) -> Iterator[Row]:
    """Planes of each photo per second, at native size, in one thread; a union is that of all annotations."""
    with thread_pool(1):  # OpenCV, too, draws in one thread
        found = setup.measure(_works(material.split, material.spec.categories), share=SHARE)
    for rates, calls in ((_EACH, message("a call for each photo")), (_ALL, message("one call for all photos"))):
        size = message("{photos} at native size, 1 thread", photos=material.photos_name)
        described = joined(", ", [size, calls])
        row = partial(Row.measured, suite="raster", setup=described)
        for which, (name, limit) in rates.items():
            ours = which not in _PEERS
            yield row(found[which], name=name, limit=found[limit], limit_name=limit, unit="images/s", ours=ours)
        for peer, compared in _PEERS.items():
            for which in (name for name in compared if name in rates):
                yield row(found[which].over(found[peer]), name=times_name(which, peer), unit="times")


def _works(split: Split, categories: Sequence[str]) -> dict[str, Work]:
    """What is measured, and the limits. All arguments are made beforehand: only the drawing is measured."""
    table, rows = split.table, split.rows
    height, width = table.height[rows], table.width[rows]
    shapes = image_shapes(split)
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

    # pycocotools begins with the JSON's lists; OpenCV with integer points, where only the drawing is left.
    masks, fills = CocoMasks(split, categories), PolygonFills(split)
    numbers = [(number,) for number in range(len(rows))]
    works = {
        "bytes": _each(fill_union, byte_calls),
        "bits": _each(fill_union_bits, bit_calls),
        "planes": _each(fill_planes, plane_calls),
        "pycocotools": _each(masks.union, numbers),
        _OPENCV: _each(fills.union, numbers),
        _ALL_BYTES: lambda: _unions(parts, first_part, last_part, height, width, person),
        _ALL_BITS: lambda: _unions_bits(parts, first_part, last_part, height, width, words),
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
