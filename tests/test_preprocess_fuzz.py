"""Masks are pycocotools' to the pixel: of photos, and of random polygons of every difficult kind on small planes.

`MASKCACHE_FUZZ=100000 pytest tests/test_preprocess_fuzz.py` draws so many polygons.
"""

from __future__ import annotations

import os
from bisect import bisect
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from pycocotools import mask as coco_mask

from bench.baseline import CocoMasks
from cache.spec import CacheSpec
from preprocess.build.plan import Split, read_split
from preprocess.raster import CROWD_IGNORE, POLYGON, fill_planes

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Random = np.random.Generator


def compare_photos(split: Split, draw: Callable[..., object] = fill_planes) -> tuple[int, int]:
    """Draw both planes of each photo of a split; give the pixels that differ from pycocotools', and all pixels."""
    table, masks = split.table, CocoMasks(split)
    parts = (table.kind, table.start, table.length, table.xy, table.counts)
    differing = compared = 0
    for number, row in enumerate(split.rows):
        shape = int(table.height[row]), int(table.width[row])
        first, last = int(table.first[row]), int(table.first[row + 1])
        person, ignore = np.empty(shape, np.uint8), np.empty(shape, np.uint8)
        draw(first, last, table.part_start, table.iscrowd, *parts, CROWD_IGNORE, person, ignore)
        for mine, other in zip((person, ignore), masks.draw(number), strict=True):
            differing += int((mine != other).sum())
            compared += mine.size
    return differing, compared


def count_differences(number: int, seed: int = 0, draw: Callable[..., object] = fill_planes) -> tuple[int, int]:
    """Draw random polygons as persons and as a crowd; give the pixels unlike pycocotools', and all pixels."""
    differing = compared = 0
    for height, width, polygons in fuzz_drawings(number, seed):
        flat = [polygon.ravel().tolist() for polygon in polygons]
        reference: U8 = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width)))
        length = np.array([len(polygon) for polygon in polygons], np.int64)
        kind, start = np.full(len(length), POLYGON, np.uint8), 2 * (np.cumsum(length) - length)
        parts = (kind, start, length, np.concatenate(polygons).ravel(), np.empty(0, np.int64))
        for crowd in (0, 1):
            planes, begins = np.empty((2, height, width), np.uint8), np.array([0, len(polygons)])
            draw(0, 1, begins, np.array([crowd], np.uint8), *parts, CROWD_IGNORE, *planes)
            differing += int((planes[crowd] != reference).sum())
            compared += reference.size
    return differing, compared


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


def draw_wrongly(*arguments):
    """Our planes, each with one wrong pixel."""
    fill_planes(*arguments)
    for plane in arguments[-2:]:
        plane[-1, -1] ^= 1


def test_photos_are_compared_pixel_by_pixel(write_coco, tmp_path):
    write_coco(tmp_path)
    split = read_split(tmp_path, "train", CacheSpec(side=64))
    pixels = int((split.table.height * split.table.width)[split.rows].sum())
    assert compare_photos(split) == (0, 2 * pixels)
    assert compare_photos(split, draw_wrongly) == (2 * len(split.rows), 2 * pixels)


def test_drawings_are_the_same_every_time_and_of_many_kinds():
    drawings = list(fuzz_drawings(1000, seed=3))
    again, others = list(fuzz_drawings(1000, seed=3)), list(fuzz_drawings(1000, seed=4))
    flat = [[polygon.tolist() for polygon in drawing.polygons] for drawing in drawings]
    assert flat == [[polygon.tolist() for polygon in drawing.polygons] for drawing in again]
    assert flat != [[polygon.tolist() for polygon in drawing.polygons] for drawing in others]
    assert sum(len(polygons) for polygons in flat) == 1000
    assert {len(polygons) for polygons in flat} == {1, 2, 3}
    assert {1, 64, 65} <= {drawing.height for drawing in drawings} & {drawing.width for drawing in drawings}
    polygons = [polygon for drawing in drawings for polygon in drawing.polygons]
    assert min(len(polygon) for polygon in polygons) >= 3
    assert any((polygon == polygon.round()).all() for polygon in polygons)
    assert any(np.abs(polygon).max() > 1000 for polygon in polygons)
    assert any((polygon < 0).all() for polygon in polygons)
    assert any(np.ptp(polygon) < 2 for polygon in polygons)
    assert any(np.linalg.matrix_rank(polygon - polygon[0], tol=1e-6) < 2 for polygon in polygons)


def test_fuzzing_notices_each_wrong_pixel():
    drawings = list(fuzz_drawings(300, seed=0))
    pixels = sum(drawing.height * drawing.width for drawing in drawings)
    assert count_differences(300) == (0, 2 * pixels)
    assert count_differences(300, draw=draw_wrongly) == (2 * len(drawings), 2 * pixels)


def test_random_polygons_are_pycocotools_own():
    assert count_differences(int(os.environ.get("MASKCACHE_FUZZ", "2000")), seed=1)[0] == 0


@pytest.mark.parametrize("split", ["train", "val"])
def test_real_photos_are_pycocotools_own(coco_people, split):
    assert compare_photos(read_split(coco_people, split, CacheSpec(side=64)))[0] == 0
