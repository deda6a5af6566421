"""What the raster suite compares with, and that it would notice a difference."""

from __future__ import annotations

import numpy as np
import pytest

from bench.baseline import CocoMasks, PolygonFills
from bench.suites import raster
from bench.suites.raster import compare_photos, count_differences, fuzz_drawings
from cache.spec import CacheSpec
from preprocess.build.plan import read_split
from preprocess.raster import RLE, fill_union, fill_union_bits

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own


@pytest.fixture(scope="module")
def dataset(write_coco, tmp_path_factory):
    root = tmp_path_factory.mktemp("raster")
    write_coco(root)
    return root, read_split(root, "train", CacheSpec(side=64))


def flip_a_pixel(*arguments):
    fill_union(*arguments)
    arguments[-1][-1, -1] ^= 1


def flip_a_bit(*arguments):
    fill_union_bits(*arguments)
    arguments[-1][0, 0] ^= np.uint64(1)


def test_a_union_is_both_planes_together(dataset):
    split = dataset[1]
    masks = CocoMasks(split)
    crowds = 0
    for number in range(len(split.rows)):
        person, ignore = masks.draw(number)
        np.testing.assert_array_equal(masks.union(number), person | ignore)
        crowds += int(ignore.any())
    assert crowds


def test_opencv_draws_nearly_the_same(dataset):
    _, split = dataset
    masks, fills, rounded = CocoMasks(split), PolygonFills(split, rounded=False), PolygonFills(split, rounded=True)
    differing = pixels = 0
    for number in range(len(split.rows)):
        ours, theirs = fills.union(number), masks.union(number)
        np.testing.assert_array_equal(ours, rounded.union(number))
        differing += int((ours != theirs).sum())
        pixels += int(theirs.sum())
    assert 0 < differing < 0.1 * pixels
    assert RLE in split.table.kind


def test_photos_are_compared_pixel_by_pixel(dataset, monkeypatch):
    _, split = dataset
    pixels = int((split.table.height * split.table.width)[split.rows].sum())
    assert compare_photos(split) == (0, 4 * pixels)
    monkeypatch.setattr(raster, "fill_union", flip_a_pixel)
    monkeypatch.setattr(raster, "fill_union_bits", flip_a_bit)
    assert compare_photos(split) == (2 * len(split.rows), 4 * pixels)


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


def test_fuzzing_notices_each_wrong_pixel(monkeypatch):
    drawings = list(fuzz_drawings(300, seed=0))
    pixels = sum(drawing.height * drawing.width for drawing in drawings)
    assert count_differences(300) == (0, 2 * pixels)
    monkeypatch.setattr(raster, "fill_union", flip_a_pixel)
    monkeypatch.setattr(raster, "fill_union_bits", flip_a_bit)
    assert count_differences(300) == (2 * len(drawings), 2 * pixels)
