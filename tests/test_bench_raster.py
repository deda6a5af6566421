"""What the raster suite compares with."""

from __future__ import annotations

import numpy as np
import pytest

from bench.baseline import CocoMasks, PolygonFills
from cache.spec import CacheSpec
from preprocess.build.plan import read_split
from preprocess.raster import RLE

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools' own


@pytest.fixture(scope="module")
def dataset(write_coco, tmp_path_factory):
    root = tmp_path_factory.mktemp("raster")
    write_coco(root)
    return root, read_split(root, "train", CacheSpec(side=64))


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
    masks, fills = CocoMasks(split), PolygonFills(split)
    differing = pixels = 0
    for number in range(len(split.rows)):
        ours, theirs = fills.union(number), masks.union(number)
        differing += int((ours != theirs).sum())
        pixels += int(theirs.sum())
    assert 0 < differing < 0.1 * pixels
    assert RLE in split.table.kind
