"""Random polygons of every difficult kind on small planes: how many pixels differ from what pycocotools draws."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from preprocess.raster import POLYGON, fill_union, fill_union_bits

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Random = np.random.Generator
Parts = tuple[U8, I64, I64, F64, I64]
"""Kind, start, length, xy and counts, see the head of `preprocess.raster`."""

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


def _tiny(random: Random, points: int, side: int) -> F64:
    """All within two pixels."""
    return side / 2 + random.uniform(0, 2, points)


_COORDINATES: dict[Callable[[Random, int, int], F64], int] = {
    _within(0, 1): 2000,
    _within(-1, 2): 2000,
    _fractions(1): 1000,
    _fractions(2): 1000,
    _fractions(8): 1000,
    _fractions(10): 1000,
    _fractions(100): 1000,
    _few: 500,
    _tiny: 500,
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


def count_differences(number: int, seed: int = 0) -> tuple[int, int]:
    """Draw what `fuzz_drawings` gives for so many polygons, as bytes and as packed bits.

    Returns:
        Pixels that differ from pycocotools', and all pixels that were compared.
    """
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


def draw_unions(parts: Parts, first: int, last: int, height: int, width: int) -> tuple[U8, U8]:
    """The union of parts first..last-1, `(H, W)` uint8 of 0 and 1, drawn as bytes and as packed bits by our kernels."""
    union = np.empty((height, width), np.uint8)
    fill_union(*parts, first, last, union)
    bits = np.empty((height, -(-width // 64)), np.uint64)
    fill_union_bits(*parts, first, last, width, bits)
    return union, np.unpackbits(bits.view(np.uint8), axis=1, count=width, bitorder="little")
