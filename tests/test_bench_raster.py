"""What the raster suite compares with."""

from __future__ import annotations

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


def test_opencv_draws_nearly_the_same(dataset):
    _, split = dataset
    masks, fills = CocoMasks(split), PolygonFills(split)
    differing = pixels = left_out = 0
    for number, row in enumerate(split.rows):
        parts = slice(*split.table.part_start[split.table.first[[row, row + 1]]])
        ours, (person, ignore) = fills.draw(number), masks.draw(number)
        if RLE in split.table.kind[parts]:
            left_out += int(ours.sum() < 0.9 * (person | ignore).sum())
            continue
        differing += int((ours != (person | ignore)).sum())
        pixels += int(person.sum())
    assert 0 < differing < 0.1 * pixels
    assert left_out
