"""The rasterizer against pycocotools, bit for bit."""

from __future__ import annotations

import contextlib
import io
import math
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from preprocess.raster import (
    COORDINATE_LIMIT,
    CROWD_DROP,
    CROWD_IGNORE,
    CROWD_PERSON,
    POLYGON,
    RLE,
    box_polygon,
    decode_rle_string,
    fill_planes,
)

Mask = npt.NDArray[np.uint8]
Segmentation = Any  # as in COCO's JSON: a list of polygons, or {"size", "counts"}

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own

fuzz = settings(
    derandomize=True, database=None, deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow]
)


class Parts(NamedTuple):
    """The flat arrays of one or more segmentations, in the order of the kernels' parameters."""

    kind: npt.NDArray[np.uint8]
    start: npt.NDArray[np.int64]
    length: npt.NDArray[np.int64]
    xy: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]


def parts_of(segmentations: Sequence[Segmentation]) -> tuple[Parts, npt.NDArray[np.int64]]:
    """Flatten segmentations; also return where the parts of each begin (A + 1,)."""
    rows: list[tuple[int, int, int]] = []
    xy: list[float] = []
    counts: list[int] = []
    begins = [0]
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            for polygon in segmentation:
                rows.append((POLYGON, len(xy), len(polygon) // 2))
                xy += polygon[: len(polygon) // 2 * 2]
        else:
            runs = segmentation["counts"]
            if isinstance(runs, str | bytes):
                text = np.frombuffer(runs.encode() if isinstance(runs, str) else runs, np.uint8)
                decoded = np.empty(len(text), np.int64)
                runs = decoded[: decode_rle_string(text, decoded)].tolist()
            rows.append((RLE, len(counts), len(runs)))
            counts += runs
        begins.append(len(rows))
    kind, start, length = np.array(rows, np.int64).reshape(-1, 3).T.copy()
    parts = Parts(kind.astype(np.uint8), start, length, np.array(xy, np.float64), np.array(counts, np.int64))
    return parts, np.array(begins, np.int64)


def guarded(shape: tuple[int, int], dtype: type, draw: Callable[[Any], object]) -> Any:
    """Let draw fill a plane of garbage that lies inside a larger buffer, whose other bytes must survive."""
    pad = 128
    size = shape[0] * shape[1]
    buffer: Any = np.full(size + 2 * pad, 0xA5, dtype)
    plane = buffer[pad : pad + size].reshape(shape)
    draw(plane)
    assert (buffer[:pad] == 0xA5).all()
    assert (buffer[pad + size :] == 0xA5).all()
    return plane


def draw_parts(parts: Parts, height: int, width: int) -> Mask:
    """Draw the union of all parts, as the persons and as a crowd, which must agree."""
    last = len(parts.kind)
    mask: Mask = guarded((height, width), np.uint8, lambda out: fill_union(parts, 0, last, out))
    crowd = guarded((height, width), np.uint8, lambda out: fill_union(parts, 0, last, out, crowd=True))
    np.testing.assert_array_equal(crowd, mask)
    return mask


def fill_union(parts: Parts, first: int, last: int, out: Mask, *, crowd: bool = False) -> None:
    """Draw the union of parts first..last-1 as the person of an image, or as its crowd; the other plane is empty."""
    begins, iscrowd, other = np.array([first, last]), np.array([crowd], np.uint8), np.full_like(out, 7)
    planes = (other, out) if crowd else (out, other)
    fill_planes(0, 1, begins, iscrowd, *parts, CROWD_IGNORE, *planes)
    assert not other.any()


def draw(segmentations: Sequence[Segmentation], height: int, width: int) -> Mask:
    return draw_parts(parts_of(segmentations)[0], height, width)


def expected(segmentations: Sequence[Segmentation], height: int, width: int) -> Mask:
    """Return the union by pycocotools, each segmentation as annToMask draws it."""
    union = np.zeros((height, width), np.uint8)
    for segmentation in segmentations:
        if isinstance(segmentation, list):
            rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation["counts"], list):
            rle = coco_mask.frPyObjects(segmentation, height, width)
        else:
            rle = segmentation
        union |= coco_mask.decode(rle)
    return union


def assert_exact(segmentations: Sequence[Segmentation], height: int, width: int) -> None:
    np.testing.assert_array_equal(draw(segmentations, height, width), expected(segmentations, height, width))


def plain_runs(mask: Mask) -> list[int]:
    """Runs of a mask down its columns, background first, without pycocotools."""
    flat = np.concatenate([[0], mask.ravel(order="F"), [1 - mask[-1, -1]]])
    return np.diff(np.flatnonzero(np.diff(flat)), prepend=0).tolist() if mask.any() else [mask.size]


# Shapes by hand


def test_a_rectangle_fills_the_pixels_between_its_edges() -> None:
    mask = draw([[[1, 2, 4, 2, 4, 5, 1, 5]]], 7, 6)
    by_hand = np.zeros((7, 6), np.uint8)
    by_hand[2:5, 1:4] = 1
    np.testing.assert_array_equal(mask, by_hand)


def test_a_self_crossing_outline_is_filled_by_parity_and_parts_are_united() -> None:
    twice = [[0, 0, 4, 0, 4, 4, 0, 4, 0, 0, 4, 0, 4, 4, 0, 4]]
    assert draw([twice], 6, 6).sum() == 0
    left, right = [0, 0, 3, 0, 3, 4, 0, 4], [2, 0, 5, 0, 5, 4, 2, 4]
    by_hand = np.zeros((6, 6), np.uint8)
    by_hand[:4, :5] = 1
    np.testing.assert_array_equal(draw([[left, right]], 6, 6), by_hand)
    np.testing.assert_array_equal(draw([[left], [right]], 6, 6), by_hand)


def test_runs_go_down_the_columns() -> None:
    mask = draw([{"size": [3, 4], "counts": [2, 5, 1, 1, 3]}], 3, 4)
    np.testing.assert_array_equal(mask, [[0, 1, 1, 0], [0, 1, 0, 0], [1, 1, 1, 0]])


def test_nothing_to_draw_still_writes_every_pixel() -> None:
    parts, _ = parts_of([[[0, 0, 5, 0, 5, 5]]])
    mask = np.full((9, 70), 7, np.uint8)
    fill_union(parts, 1, 1, mask)
    assert not mask.any()


def test_only_the_parts_asked_for_are_drawn() -> None:
    squares = [[[x, 1, x + 3, 1, x + 3, 4, x, 4]] for x in (0, 5, 10, 15)]
    parts, _ = parts_of(squares)
    mask = np.empty((6, 20), np.uint8)
    fill_union(parts, 1, 3, mask)
    np.testing.assert_array_equal(mask, expected(squares[1:3], 6, 20))


@pytest.mark.parametrize("height", [1, 2, 65])
@pytest.mark.parametrize("width", [1, 2, 7, 63, 64, 65, 127, 128, 129, 200])
def test_every_width_and_the_smallest_images(height: int, width: int) -> None:
    whole = [-2, -2, width + 2, -2, width + 2, height + 2, -2, height + 2]
    assert draw([[whole]], height, width).all()
    inner = [0.3, 0.1, width - 0.2, 0.4, width / 2, height - 0.3]
    assert_exact([[inner]], height, width)
    noise = (np.random.default_rng(width).random((height, width)) < 0.5).astype(np.uint8)
    assert_exact([{"size": [height, width], "counts": plain_runs(noise)}], height, width)


def test_a_plane_of_8192_by_8192() -> None:
    side = 8192
    mask = draw(
        [[[0, 0, side, 0, 0, side]], [[side - 70, side - 3, side, side - 3, side, side, side - 70, side]]], side, side
    )
    assert mask[0].sum() == pytest.approx(side, abs=2)
    assert mask[side // 2].sum() == pytest.approx(side // 2, abs=2)
    assert mask[-3:, -70:].all()
    assert mask.sum() == pytest.approx(side * side / 2, rel=1e-3)


@pytest.mark.parametrize(
    "polygons",
    [
        [[3, 3, 20, 3, 20, 20], [5, 5]],
        [[3, 3, 20, 3, 20, 20], [5, 5, 30, 17]],
        [[3, 3, 20, 3, 20, 20], []],
        [[3, 3, 20, 3, 20, 20, 9]],
        [[7, 7, 7, 7, 7, 7]],
        [[1, 2, 3, 2, 5, 2]],
        [[2, 1, 2, 30, 2, 12]],
        [[2.5, 2.5, 30.5, 2.5, 30.5, 30.5, 2.5, 30.5]],
        [[-50, -50, -20, -50, -20, -20]],
        [[500, 500, 520, 500, 520, 520]],
        [[10, -40, 20, -40, 20, -10, 10, -10]],
        [[-30, 10, 80, 10, 80, 11, -30, 11]],
    ],
    ids=[
        "1 point",
        "2 points",
        "none",
        "odd",
        "dot",
        "level",
        "upright",
        "halves",
        "before",
        "after",
        "above",
        "across",
    ],
)
def test_degenerate_polygons(polygons: list[list[float]]) -> None:
    assert_exact([polygons], 40, 50)


@pytest.mark.parametrize("box", [(3, 4, 10, 12), (2.5, 3.1, 7.7, 0.2), (-5, -5, 99, 9), (4, 4, 0, 0), (9, 9, -4, -6)])
def test_a_box_is_its_four_corners(box: tuple[float, float, float, float]) -> None:
    by_pycocotools = coco_mask.decode(coco_mask.frPyObjects(np.array([box], np.float64), 30, 40))[..., 0]
    np.testing.assert_array_equal(draw([[box_polygon(*box).tolist()]], 30, 40), by_pycocotools)


def test_every_short_edge() -> None:
    """Edges between points of pycocotools' fine grid meet the borders of rows exactly, where rounding decides."""
    for dx in range(26):
        for dy in range(-25, 26):
            assert_exact([[[1, 6, 1 + dx / 5, 6 + dy / 5, 4.6, 11.4]]], 12, 8)


# Coordinates and runs beyond all sense


def test_far_away_vertices_cost_no_walk_and_fill_what_lies_inside() -> None:
    far = COORDINATE_LIMIT
    assert draw([[[-far, -far, far, -far, far, far, -far, far]]], 50, 70).all()
    start = time.perf_counter()  # by now the kernels are compiled
    diagonal = draw([[[-far, -far, far, far, -far, far]]], 70, 70)
    rows, columns = np.indices(diagonal.shape)
    assert diagonal[rows > columns].all()
    assert not diagonal[rows < columns].any()
    steep = draw([[[30, -far, 40, far, -far, far, -far, -far]]], 50, 70)
    np.testing.assert_array_equal(steep, np.broadcast_to(np.arange(70) < 35, (50, 70)))
    assert time.perf_counter() - start < 5.0  # a walk of 10^9 steps, six times over, takes longer


def test_a_million_pixels_away_is_still_exact() -> None:
    assert_exact([[[-1e6, 3.3, 1e6, 41.7, 12.2, 1e6]]], 60, 80)
    assert_exact([[[13.1, -1e6, 1e6, 20.2, 51.9, 9e5]]], 60, 80)


def walked_rows(xs: int, ys: int, xe: int, ye: int, width: int) -> Iterator[tuple[int, int]]:
    """Columns that an edge crosses and the rows, as rleFrPoly says, but without the steps that lie between columns."""
    dx, dy = abs(xe - xs), abs(ye - ys)
    if (xs > xe) if dx >= dy else (ys > ye):
        xs, ys, xe, ye = xe, ye, xs, ys

    def step(t: int) -> tuple[int, int]:
        if dx >= dy:
            return xs + t, int(ys + (ye - ys) / dx * t + 0.5)
        return int(xs + (xe - xs) / dy * t + 0.5), ys + t

    for column in range(width):
        before, behind = 5 * column + 2, 5 * column + 3
        if min(xs, xe) <= before and behind <= max(xs, xe):
            # The first step on the other side, found by halving: the rounded u of the steps never turns round.
            across = bisect_left(range(max(dx, dy) + 1), True, key=lambda t: (step(t)[0] >= behind) == (xs < xe))
            (u, v), (u_last, v_last) = step(across), step(across - 1)
            if {u, u_last} == {before, behind}:
                yield column, math.ceil((min(v, v_last) + 0.5) / 5 - 0.5)


def walked(polygon: Sequence[float], height: int, width: int) -> Mask:
    """The mask of a polygon that is too long to be walked."""
    points = [(int(5 * x + 0.5), int(5 * y + 0.5)) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
    toggles = np.zeros((height + 1, width), np.uint8)
    for start, end in zip(points, points[1:] + points[:1], strict=True):
        for column, row in walked_rows(*start, *end, width):
            toggles[min(max(row, 0), height), column] ^= 1
    return np.bitwise_xor.accumulate(toggles, axis=0)[:height]


def doubtful_edges(count: int, most_bits: int) -> list[list[float]]:
    """Polygons of which an edge, short or long, meets the border of two rows at a step of the walk, or almost does.

    One end is an odd number of times as far away as the other. If it moves by a point of the grid, the edge moves by as
    little as rounding does.
    """
    rng = np.random.default_rng(most_bits)
    u = 5 * rng.integers(0, 20, count) + rng.choice([2.0, 2.5, 3.0], count)
    v = 5 * rng.integers(0, 20, count) + rng.choice([-2.5, -2.0, -1.5], count)
    bits = rng.integers(0, most_bits, count)
    du, dv = (np.floor(rng.random(count) * 2.0 ** (rng.random(count) * bits)) + middle % 1 for middle in (u, v))
    dv *= rng.choice([-1, 1], count)
    times = 2 * np.floor(rng.random(count) * 2.0 ** (most_bits - bits)) + 1
    moved = rng.choice([0, 0, 1, -1], (2, count))
    third = rng.integers(-(2**most_bits), 2**most_bits, (2, count))
    grid = np.stack([u + du, v + dv, u - times * du + moved[0], v - times * dv + moved[1], *third], 1)
    return np.where(grid >= 0, grid / 5, (grid - 0.8) / 5).tolist()  # pycocotools truncates towards 0


def test_halving_finds_what_walking_finds() -> None:
    for polygon in doubtful_edges(200, 11):
        np.testing.assert_array_equal(walked(polygon, 20, 20), expected([[polygon]], 20, 20))


def test_doubtful_edges_are_exact_up_to_the_limit() -> None:
    reach = 0.0
    for polygon in doubtful_edges(1000, 28):
        reach = max(reach, *map(abs, polygon))
        np.testing.assert_array_equal(draw([[polygon]], 20, 20), walked(polygon, 20, 20))
    assert COORDINATE_LIMIT / 2 < reach < COORDINATE_LIMIT


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e9, -1e300, 2.0**63])
@pytest.mark.parametrize("position", range(8))
def test_meaningless_coordinates_neither_crash_nor_spoil_other_parts(bad: float, position: int) -> None:
    points = [5.0, 5, 30, 6, 31, 35, 4, 33]
    points[position] = bad
    clamped = points.copy()
    clamped[position] = -COORDINATE_LIMIT if np.isnan(bad) else float(np.clip(bad, -COORDINATE_LIMIT, COORDINATE_LIMIT))
    sound = [[40.0, 3, 60, 3, 60, 38, 40, 38]]
    np.testing.assert_array_equal(draw([[points], sound], 40, 70), draw([[clamped], sound], 40, 70))


@pytest.mark.parametrize(
    ("counts", "as_if"),
    [
        ([3, 4], [3, 4, 5]),
        ([], [12]),
        ([3, 100], [3, 9]),
        ([3, 2**62, 2**62, 2**62, 2**62], [3, 9]),
        ([3, -5, 2, 4], [5, 4, 3]),
        ([-(2**63), 2, 2**63 - 1, 7], [0, 2, 10]),
        ([0, 0, 0, 5, 0, 3], [0, 8, 4]),
    ],
)
def test_runs_of_a_wrong_sum_are_cut_or_completed(counts: list[int], as_if: list[int]) -> None:
    mask = draw([{"size": [3, 4], "counts": counts}], 3, 4)
    np.testing.assert_array_equal(mask, expected([{"size": [3, 4], "counts": as_if}], 3, 4))


# Compressed strings


def test_a_known_string() -> None:
    text = coco_mask.encode(np.asfortranarray(np.eye(5, dtype=np.uint8)))["counts"]
    counts = np.empty(len(text), np.int64)
    runs = decode_rle_string(np.frombuffer(text, np.uint8), counts)
    assert counts[:runs].tolist() == [0, 1, 5, 1, 5, 1, 5, 1, 5, 1]


@pytest.mark.parametrize("text", [b"5/", b"5p", b"5 1", b"5T", b"0000O", b"PPPPPPPP1", b"\x00", b"\xff1"])
def test_a_malformed_string_is_refused(text: bytes) -> None:
    assert decode_rle_string(np.frombuffer(text, np.uint8), np.empty(32, np.int64)) == -1


def test_a_string_with_more_runs_than_room_is_refused() -> None:
    counts = np.full(4, -9, np.int64)
    assert decode_rle_string(np.frombuffer(b"1111", np.uint8), counts[:3]) == -1
    assert counts[3] == -9
    assert decode_rle_string(np.frombuffer(b"", np.uint8), counts) == 0


# Both planes


@pytest.fixture
def scene() -> tuple[list[Segmentation], npt.NDArray[np.uint8]]:
    crowd = np.zeros((50, 90), np.uint8)
    crowd[10:40, 20:80] = 1
    polygon = [[5.2, 5.7, 45.1, 8, 40, 30.5], [60, 3, 70, 3, 70, 45, 60, 45]]
    another = [[30.0, 20, 52, 20, 52, 49, 30, 49]]
    return [polygon, {"size": [50, 90], "counts": plain_runs(crowd)}, another], np.array([0, 1, 0], np.uint8)


def draw_planes(segmentations: Any, iscrowd: Any, rule: int, height: int, width: int) -> tuple[Mask, Mask]:
    """Draw both planes, whose boxes must hold all that is in them."""
    parts, begins = parts_of(segmentations)
    person, ignore = (np.full((height, width), 9, np.uint8) for _ in range(2))
    boxes = fill_planes(0, len(segmentations), begins, iscrowd, *parts, rule, person, ignore)
    for plane, (left, right, top, bottom) in zip((person, ignore), boxes, strict=True):
        assert 0 <= left <= right <= width
        assert 0 <= top <= bottom <= height
        assert plane.sum() == plane[top:bottom, left:right].sum()
    return person, ignore


def test_the_three_rules_for_crowds(scene: tuple[list[Segmentation], npt.NDArray[np.uint8]]) -> None:
    segmentations, iscrowd = scene
    persons = expected([segmentations[0], segmentations[2]], 50, 90)
    crowd = expected([segmentations[1]], 50, 90)
    assert (persons & crowd).any()
    assert (crowd & ~persons).any()
    for rule, by_hand in (
        (CROWD_IGNORE, (persons, crowd & (1 - persons))),
        (CROWD_PERSON, (persons | crowd, np.zeros_like(crowd))),
        (CROWD_DROP, (persons, np.zeros_like(crowd))),
    ):
        person, ignore = draw_planes(segmentations, iscrowd, rule, 50, 90)
        np.testing.assert_array_equal(person, by_hand[0])
        np.testing.assert_array_equal(ignore, by_hand[1])


def test_planes_of_an_image_without_annotations(scene: tuple[list[Segmentation], npt.NDArray[np.uint8]]) -> None:
    parts, begins = parts_of(scene[0])
    person, ignore = (np.full((5, 90), 9, np.uint8) for _ in range(2))
    fill_planes(1, 1, begins, scene[1], *parts, CROWD_IGNORE, person, ignore)
    assert not person.any()
    assert not ignore.any()


def test_boxes_are_those_of_what_was_drawn(scene: tuple[list[Segmentation], npt.NDArray[np.uint8]]) -> None:
    segmentations, iscrowd = scene
    parts, begins = parts_of(segmentations)
    planes = np.empty((2, 50, 90), np.uint8)

    def boxes(first: int, last: int, rule: int) -> Any:
        return fill_planes(first, last, begins, iscrowd, *parts, rule, *planes)

    empty, crowd = (0, 0, 0, 0), (20, 80, 0, 50)
    assert boxes(2, 3, CROWD_IGNORE) == ((30, 52, 20, 50), empty)  # the row after the last may be empty
    assert boxes(0, 1, CROWD_IGNORE) == ((5, 70, 3, 46), empty)
    assert boxes(0, 3, CROWD_IGNORE) == ((5, 70, 3, 50), crowd)
    assert boxes(0, 3, CROWD_PERSON) == ((5, 80, 0, 50), empty)
    assert boxes(0, 3, CROWD_DROP) == ((5, 70, 3, 50), empty)
    assert boxes(1, 2, CROWD_IGNORE) == (empty, crowd)
    assert boxes(1, 2, CROWD_DROP) == (empty, empty)
    assert boxes(1, 1, CROWD_IGNORE) == (empty, empty)


def test_planes_refuse_what_does_not_fit(scene: tuple[list[Segmentation], npt.NDArray[np.uint8]]) -> None:
    parts, begins = parts_of(scene[0])
    plane = np.empty((50, 90), np.uint8)
    with pytest.raises(ValueError, match="shape"):
        fill_planes(0, 3, begins, scene[1], *parts, CROWD_IGNORE, plane, np.empty((50, 80), np.uint8))
    with pytest.raises(ValueError, match="crowd_rule"):
        fill_planes(0, 3, begins, scene[1], *parts, 3, plane, plane.copy())


def test_two_threads_at_once_draw_the_same() -> None:
    rng = np.random.default_rng(5)
    shapes = [[(rng.random(60) * 400).tolist()] for _ in range(40)]
    parts, _ = parts_of(shapes)
    alone = np.empty((40, 300, 400), np.uint8)
    for i in range(40):
        fill_union(parts, 0, i + 1, alone[i])
    barrier = Barrier(2)

    def draw_all(order: Sequence[int]) -> Mask:
        together = np.empty_like(alone)
        barrier.wait()
        for i in order:
            fill_union(parts, 0, i + 1, together[i])
        return together

    with ThreadPoolExecutor(2) as pool:
        for together in pool.map(draw_all, (range(40), range(39, -1, -1))):
            np.testing.assert_array_equal(together, alone)


# Fuzz


def coordinates(side: int) -> st.SearchStrategy[st.SearchStrategy[float]]:
    """Families of coordinates for an image side; a polygon takes all of its own from one."""
    inside = st.floats(0, side)
    around = st.floats(-1.5 * side, 2.5 * side)
    eighths = st.integers(-8 * side, 16 * side).map(lambda v: v / 8)
    halves = st.integers(-side, 3 * side).map(lambda v: v / 2)
    tenths = st.integers(-3 * side, 13 * side).map(lambda v: v / 10)
    hundredths = st.integers(-10 * side, 110 * side).map(lambda v: v / 100)
    whole = st.integers(-1, side + 1).map(float)
    few = st.sampled_from([-0.1, 0.0, 0.1, side / 2, side - 0.5, float(side)])
    tiny = st.floats(side / 2, side / 2 + 2)
    far = st.floats(-4000, 4000)
    return st.sampled_from([inside, around, eighths, halves, tenths, hundredths, whole, few, tiny, far])


@st.composite
def polygons(pick: st.DrawFn, height: int, width: int) -> list[float]:
    xs = pick(coordinates(width))
    ys = pick(coordinates(height))
    points = pick(st.lists(st.tuples(xs, ys), min_size=3, max_size=24))
    if pick(st.booleans()):
        points = [p for p in points for _ in range(pick(st.integers(1, 3)))]  # the same vertex again and again
    if pick(st.integers(0, 9)) == 0:
        (x, y), (dx, dy) = points[:2]
        points = [(x + t * dx, y + t * dy) for t in pick(st.lists(st.floats(-1, 1), min_size=3, max_size=8))]
    return [v for point in points for v in point]


@st.composite
def masks(pick: st.DrawFn, height: int, width: int) -> Mask:
    seed, density = pick(st.integers(0, 2**32 - 1)), pick(st.sampled_from([0.0, 0.02, 0.5, 0.98, 1.0]))
    return (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)


sides = st.one_of(st.integers(1, 130), st.sampled_from([1, 2, 63, 64, 65, 128]))


@fuzz
@given(st.data())
def test_fuzzed_polygons(data: st.DataObject) -> None:
    height, width = data.draw(sides, "height"), data.draw(sides, "width")
    shapes = st.lists(polygons(height, width), min_size=1, max_size=3)
    assert_exact(data.draw(st.lists(shapes, min_size=1, max_size=2), "segmentations"), height, width)


@fuzz
@given(st.data())
def test_fuzzed_runs(data: st.DataObject) -> None:
    height, width = data.draw(sides, "height"), data.draw(sides, "width")
    mask = data.draw(masks(height, width), "mask")
    plain = {"size": [height, width], "counts": plain_runs(mask)}
    compressed = coco_mask.encode(np.asfortranarray(mask))
    np.testing.assert_array_equal(draw([plain], height, width), mask)
    np.testing.assert_array_equal(draw([compressed], height, width), mask)
    assert_exact([plain], height, width)
    outline = data.draw(polygons(height, width), "polygon")
    assert_exact([compressed, [outline]], height, width)


@fuzz
@given(
    st.lists(st.floats(width=64), max_size=24),
    st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12),
    st.binary(max_size=24),
    sides,
    sides,
)
def test_no_input_writes_outside(xy: list[float], runs: list[int], text: bytes, height: int, width: int) -> None:
    counts = guarded((1, len(text)), np.int64, lambda out: decode_rle_string(np.frombuffer(text, np.uint8), out[0]))
    parts = Parts(
        np.array([POLYGON, RLE, RLE], np.uint8),
        np.array([0, 0, len(runs)]),
        np.array([len(xy) // 2, len(runs), len(text)]),
        np.array(xy, np.float64),
        np.concatenate([np.array(runs, np.int64), counts[0]]),
    )
    assert draw_parts(parts, height, width).max() <= 1


# Real annotations


def annotation_files(folder: Path) -> Iterator[COCO]:
    for split in ("train", "val"):
        with contextlib.redirect_stdout(io.StringIO()):
            yield COCO(folder / "annotations" / f"person_keypoints_{split}2017.json")


def test_every_annotation_of_coco_mini(coco_mini: Path) -> None:
    crowds = total = 0
    for coco in annotation_files(coco_mini):
        for annotation in coco.anns.values():
            image = coco.imgs[annotation["image_id"]]
            height, width = image["height"], image["width"]
            mask = coco.annToMask(annotation)
            np.testing.assert_array_equal(draw([annotation["segmentation"]], height, width), mask)
            np.testing.assert_array_equal(draw([coco.annToRLE(annotation)], height, width), mask)
            crowds += annotation["iscrowd"]
            total += 1
    assert total >= 290
    assert crowds >= 6


def test_every_image_of_coco_people(coco_people: Path) -> None:
    images = 0
    for coco in annotation_files(coco_people):
        for image_id, image in coco.imgs.items():
            annotations = coco.imgToAnns[image_id]
            persons, crowds = (np.zeros((image["height"], image["width"]), np.uint8) for _ in range(2))
            for annotation in annotations:
                union = crowds if annotation["iscrowd"] else persons
                union |= coco.annToMask(annotation)
            segmentations = [a["segmentation"] for a in annotations]
            iscrowd = np.array([a["iscrowd"] for a in annotations], np.uint8)
            person, ignore = draw_planes(segmentations, iscrowd, CROWD_IGNORE, image["height"], image["width"])
            np.testing.assert_array_equal(person, persons)
            np.testing.assert_array_equal(ignore, crowds & (1 - persons))
            np.testing.assert_array_equal(draw(segmentations, image["height"], image["width"]), persons | crowds)
            images += 1
    assert images == 740
