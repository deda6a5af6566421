"""The annotation file that is written for measuring, and what is measured on it."""

import json
import math

import numpy as np
import psutil
import pytest
from pycocotools import mask as coco_mask

from bench.config import BenchConfig, Setup
from bench.material import open_material
from bench.suites import annotations
from bench.suites.annotations import ANNOTATIONS, IMAGES, annotation_rows, write_annotation_file
from preprocess.annotations.table import load_persons
from preprocess.raster import POLYGON

SCALE = 0.005


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "annotations.json"
    write_annotation_file(path, scale=SCALE)
    return path


@pytest.fixture(scope="module")
def content(path):
    return json.loads(path.read_bytes())


def test_it_is_written_as_json_writes_it(path, content):
    assert list(content) == ["info", "licenses", "images", "annotations", "categories"]
    assert path.read_text() == json.dumps(content)


def test_it_has_the_size_of_cocos(path, content):
    assert len(content["images"]) == round(SCALE * IMAGES)
    assert len(content["annotations"]) == round(SCALE * ANNOTATIONS)
    assert path.stat().st_size == pytest.approx(SCALE * 277e6, rel=0.08)


def test_images_and_annotations_refer_to_each_other(content):
    images = {image["id"]: image for image in content["images"]}
    assert len(images) == len(content["images"])
    assert {annotation["image_id"] for annotation in content["annotations"]} == images.keys()
    owners = [annotation["image_id"] for annotation in content["annotations"]]
    assert owners != sorted(owners)
    assert len({annotation["id"] for annotation in content["annotations"]}) == len(owners)
    assert all(f"{image['id']:012d}.jpg" == image["file_name"] for image in content["images"])


def test_every_annotation_is_as_coco_has_it(content):
    sizes = {image["id"]: [image["height"], image["width"]] for image in content["images"]}
    crowds = 0
    for annotation in content["annotations"]:
        shape, size = annotation["segmentation"], sizes[annotation["image_id"]]
        if annotation["iscrowd"]:
            crowds += 1
            assert shape["size"] == size
            assert sum(shape["counts"]) == math.prod(size)
            assert min(shape["counts"]) > 0
            assert annotation["num_keypoints"] == 0
        else:
            assert all(len(polygon) % 2 == 0 and len(polygon) >= 6 for polygon in shape)
            points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in shape])
            assert (points == points.round(2)).all()
            assert points.min() >= 0
            assert (points <= size[::-1]).all()
            low, high = points.min(axis=0), points.max(axis=0)
            assert annotation["bbox"] == pytest.approx([*low, *(high - low)], abs=1e-9)
            if len(shape) == 1 and annotation["area"] > 1000:
                drawn = coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(shape, *size)))
                assert drawn == pytest.approx(annotation["area"], rel=0.15)
        keypoints = np.reshape(annotation["keypoints"], (17, 3))
        assert np.count_nonzero(keypoints[:, 2]) == annotation["num_keypoints"]
        assert not keypoints[keypoints[:, 2] == 0].any()
    assert crowds == pytest.approx(annotations.CROWD_SHARE * len(content["annotations"]), rel=0.5)


def test_its_table_has_cocos_statistics(path):
    table = load_persons(path)
    assert table.problems == ()
    points = table.length[table.kind == POLYGON]
    assert np.median(points) == pytest.approx(26, rel=0.1)
    assert points.mean() == pytest.approx(33, rel=0.1)
    assert np.mean(table.keypoints > 0) == pytest.approx(0.57, abs=0.05)
    persons = np.diff(table.first)
    assert persons.min() >= 1
    assert persons.mean() == pytest.approx(ANNOTATIONS / IMAGES, rel=0.01)
    assert persons.max() > 10


def test_equal_seeds_give_equal_files(path, tmp_path):
    write_annotation_file(tmp_path / "same", scale=SCALE)
    assert (tmp_path / "same").read_bytes() == path.read_bytes()
    write_annotation_file(tmp_path / "other", scale=SCALE, seed=1)
    assert (tmp_path / "other").read_bytes() != path.read_bytes()


def test_the_smallest_file_has_one_of_each(tmp_path):
    write_annotation_file(tmp_path / "a.json", scale=0)
    assert len(load_persons(tmp_path / "a.json").annotation_id) == 1


def test_the_suite_measures_all_readers(monkeypatch):
    monkeypatch.setattr(annotations, "QUICK_SCALE", SCALE)
    setup = Setup.of(BenchConfig(quick=True, seconds=0.01, suites=("raster",)))
    with open_material(setup) as material:
        rows = {row.name: row for row in annotation_rows(setup, material)}
        left = sum(file.stat().st_size for file in material.folder.iterdir())
    assert left < 1e6
    readers = ["annotations", "annotations by pycocotools", "annotations by json"]
    ratios = ["annotations: times pycocotools", "annotations: times json"]
    assert list(rows) == [*readers, *ratios, *(f"{name}: peak memory" for name in readers)]
    for row in rows.values():
        assert (row.suite, row.kind, row.runs) == ("annotations", "measured", 3)
        assert "1,312 annotations of 321 images in 1 MB" in row.setup
        assert 0 < row.p10 <= row.value <= row.p90
    assert {rows[name].unit for name in readers} == {"annotations/s"}
    assert all(0 < rows[name].ratio < 1 for name in readers)
    times = rows[readers[0]].value / rows[readers[1]].value
    assert rows[ratios[0]].value == pytest.approx(times, rel=0.5)
    own = psutil.Process().memory_info().rss / 1e6
    for name in readers:
        memory = rows[f"{name}: peak memory"]
        assert memory.unit == "MB"
        assert 5 < memory.value < own, "the memory of this process is not that of the reader"
        assert memory.limit > 1.3
