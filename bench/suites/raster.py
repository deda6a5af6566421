"""The suite `raster`: polygons to planes by our kernels, pycocotools and OpenCV, against overwriting the planes.

It also counts the pixels that differ from what pycocotools draws: of the photos, and of random polygons of every
difficult kind on small planes.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from pycocotools import mask as coco_mask

from bench.baseline import CocoMasks, PolygonFills, image_shapes
from bench.ceilings import clear_planes, thread_pool
from bench.config import Setup
from bench.material import Material
from bench.report import Row, times_name
from bench.timing import Work
from cache.messages import joined, message
from preprocess.build.plan import Split, read_split
from preprocess.errors import DatasetError
from preprocess.raster import CROWD_IGNORE, POLYGON, fill_planes, fill_union, fill_union_bits

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]
Random = np.random.Generator
Parts = tuple[U8, I64, I64, F64, I64]
"""Kind, start, length, xy and counts, see the head of `preprocess.raster`."""

SHARE = 0.5
"""Share of the usual time for each measurement: there are many here, and their calls are short."""

FUZZ_POLYGONS, FUZZ_SHORT, FUZZ_QUICK = 100_000, 10_000, 2_000
"""Random polygons that are compared; the second number where the photos are drawn."""

_PLANE = message("overwriting the plane")
_PACKED = message("overwriting the packed plane")
_BOTH = message("overwriting both planes")
_ALONE, _ALL_BYTES, _ALL_BITS = message("cv2.fillPoly alone"), message("all bytes"), message("all bits")
_EACH = {
    "bytes": (message("union as bytes"), _PLANE),
    "bits": (message("union as packed bits"), _PACKED),
    "planes": (message("both planes as bytes"), _BOTH),
    "pycocotools": (message("union by pycocotools"), _PLANE),
    "cv2.fillPoly": (message("union by cv2.fillPoly"), _PLANE),
    _ALONE: (message("union by cv2.fillPoly alone"), _PLANE),
}
_ALL = {
    _ALL_BYTES: (message("all unions as bytes"), _PLANE),
    _ALL_BITS: (message("all unions as packed bits"), _PACKED),
}
"""What is measured, photo by photo and in one call: name of the row, and the limit."""

_PEERS = {"pycocotools": ("bytes", "bits", _ALL_BYTES, _ALL_BITS), "cv2.fillPoly": ("bytes",), _ALONE: ("bytes",)}
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
    yield from _difference_rows(setup, material)


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

    # The peers begin with the JSON's lists; the last one with integer points, where only the drawing is left.
    masks = CocoMasks(split, categories)
    fills, alone = PolygonFills(split, rounded=False), PolygonFills(split, rounded=True)
    numbers = [(number,) for number in range(len(rows))]
    works = {
        "bytes": _each(fill_union, byte_calls),
        "bits": _each(fill_union_bits, bit_calls),
        "planes": _each(fill_planes, plane_calls),
        "pycocotools": _each(masks.union, numbers),
        "cv2.fillPoly": _each(fills.union, numbers),
        _ALONE: _each(alone.union, numbers),
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


def _difference_rows(setup: Setup, material: Material) -> Iterator[Row]:
    splits = [material.split]
    with suppress(DatasetError):  # a dataset without that split, or nobody in it
        splits.append(read_split(material.coco, "val", material.spec))
    photos = sum(len(split.rows) for split in splits)
    polygons = FUZZ_QUICK if setup.config.quick else FUZZ_SHORT if material.drawn else FUZZ_POLYGONS
    found = [compare_photos(split, material.spec.categories) for split in splits]
    for name, work, (differing, compared) in (
        ("photos", message("{photos} photos, unions and both planes", photos=photos), np.sum(found, axis=0).tolist()),
        ("fuzz", message("{polygons:,} fuzz polygons, unions", polygons=polygons), count_differences(polygons)),
    ):
        row = partial(Row.measured, suite="raster", setup=message("{work}, as bytes and as packed bits", work=work))
        title = message("{name}: unlike pycocotools", name=name)
        note = message("of {compared:,} pixels", compared=compared)
        yield row(float(differing), name=title, unit="pixels", note=note)


def compare_photos(split: Split, categories: Sequence[str] = ("person",)) -> tuple[int, int]:
    """Draw each photo of a split by all kernels; give the pixels that differ from pycocotools', and all pixels."""
    table, masks = split.table, CocoMasks(split, categories)
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


def count_differences(number: int, seed: int = 0) -> tuple[int, int]:
    """Draw random polygons by both kernels; give the pixels that differ from pycocotools', and all pixels."""
    differing = compared = 0
    for height, width, polygons in fuzz_drawings(number, seed):
        flat = [polygon.ravel().tolist() for polygon in polygons]
        reference: U8 = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))
        length = np.array([len(polygon) for polygon in polygons], np.int64)
        kind, start = np.full(len(length), POLYGON, np.uint8), 2 * (np.cumsum(length) - length)
        parts = (kind, start, length, np.concatenate(polygons).ravel(), np.empty(0, np.int64))
        for ours in draw_unions(parts, 0, len(polygons), height, width):
            differing += int((ours != reference).sum())
            compared += ours.size
    return differing, compared


def draw_unions(parts: Parts, first: int, last: int, height: int, width: int) -> tuple[U8, U8]:
    """The union of parts first..last-1, `(H, W)` uint8 of 0 and 1, drawn as bytes and as packed bits by our kernels."""
    union = np.empty((height, width), np.uint8)
    fill_union(*parts, first, last, union)
    bits = np.empty((height, -(-width // 64)), np.uint64)
    fill_union_bits(*parts, first, last, width, bits)
    return union, np.unpackbits(bits.view(np.uint8), axis=1, count=width, bitorder="little")


SIDES = (1, 2, 63, 64, 65, 128)
"""Heights and widths around the ends of 64-bit words, drawn as often as all others up to `MOST_SIDE` together."""

MOST_SIDE = 100
MOST_POINTS = 12


class Drawing(NamedTuple):
    """Height and width of a plane in pixels, and the polygons whose union it shows, `(N, 2)` x and y each."""

    height: int
    width: int
    polygons: list[F64]


def _fractions(parts: int) -> Callable[[Random, int, int], F64]:
    """Multiples of 1 / parts, where the rounding of doubles decides between two pixels."""

    def draw(random: Random, points: int, side: int) -> F64:
        return random.integers(-side * parts, 2 * side * parts + 1, points) / parts

    return draw


def _within(low: float, high: float, least: float = 0.0) -> Callable[[Random, int, int], F64]:
    """Uniform between low and high, in units of the plane's side, or of `least` pixels if that is larger."""
    return lambda random, points, side: random.uniform(low * max(side, least), high * max(side, least), points)


def _few(random: Random, points: int, side: int) -> F64:
    """Five values only: edges that are horizontal, vertical, of no length, or lie on each other."""
    return np.array((-0.1, 0.0, side / 2, side - 0.5, side))[random.integers(0, 5, points)]


_COORDINATES: dict[Callable[[Random, int, int], F64], int] = {
    _within(0, 1): 2000,
    _within(-1, 2): 2000,
    _fractions(1): 1000,
    _fractions(2): 1000,
    _fractions(8): 1000,
    _fractions(10): 1000,
    _fractions(100): 1000,
    _few: 500,
    lambda random, points, side: side / 2 + random.uniform(0, 2, points): 500,
    _within(-1, 1, least=2000): 100,
    _within(-1, 1, least=100_000): 1,
}
"""Kinds of coordinates and their weights; huge ones are rare, because pycocotools visits each pixel of an edge."""

_KINDS, _ENDS = list(_COORDINATES), list(accumulate(_COORDINATES.values()))


def fuzz_drawings(polygons: int, seed: int) -> Iterator[Drawing]:
    """Drawings of one to three polygons each, `polygons` in all; the same ones for the same seed."""
    random = np.random.default_rng(seed)
    while polygons > 0:
        height, width = _side(random), _side(random)
        parts = min(polygons, int(random.integers(1, 4)))
        yield Drawing(height, width, [_polygon(random, height, width) for _ in range(parts)])
        polygons -= parts


def _side(random: Random) -> int:
    number = int(random.integers(2 * MOST_SIDE))
    return number - MOST_SIDE + 1 if number >= MOST_SIDE else SIDES[number % len(SIDES)]


def _polygon(random: Random, height: int, width: int) -> F64:
    """A polygon of 3 points or more, `(N, 2)`."""
    points = int(random.integers(3, MOST_POINTS + 1))
    of_x, of_y = (_KINDS[bisect(_ENDS, int(random.integers(_ENDS[-1])))] for _ in "xy")
    xy = np.stack((of_x(random, points, width), of_y(random, points, height)), 1)
    twist = random.random()
    if twist < 0.1:  # all on one line
        xy = xy[0] + random.uniform(-1, 1, (points, 1)) * (xy[1] - xy[0])
    elif twist < 0.2:  # each vertex once or several times
        xy = np.repeat(xy, random.integers(1, 4, points), 0)
    elif twist < 0.6:  # around their centre, like real outlines: else almost all would intersect themselves
        around = xy - xy.mean(0)
        xy = xy[np.argsort(np.arctan2(around[:, 1], around[:, 0]))]
    return xy
