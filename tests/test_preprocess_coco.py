"""COCO JSON -> PersonTable, against pycocotools, and what is said of files that are broken."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from cache.spec import CacheSpec
from preprocess.coco import annotation_file, load_persons
from preprocess.errors import DatasetError
from preprocess.sample import native_planes
from preprocess.select import rule_counts, select_images


def document(annotations, images=({"id": 7, "file_name": "a.jpg", "height": 20, "width": 30},), category="person"):
    defaults = {"image_id": 7, "category_id": 1, "iscrowd": 0, "num_keypoints": 0, "area": 1.0}
    return {
        "images": list(images),
        "annotations": [{"id": number, **defaults, **fields} for number, fields in enumerate(annotations, 1)],
        "categories": [{"id": 1, "name": category}, {"id": 2, "name": "dog"}],
    }


@pytest.fixture
def load(tmp_path):
    def write_and_load(content, **options):
        path = tmp_path / "annotations.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return load_persons(path, **options)

    return write_and_load


def quiet_coco(path):
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def oracle_planes(coco, image_id):
    """Person and crowd-minus-person by pycocotools."""
    image = coco.imgs[image_id]
    person, crowd = np.zeros((2, image["height"], image["width"]), np.uint8)
    for annotation in coco.imgToAnns[image_id]:
        (crowd if annotation["iscrowd"] else person)[coco.annToMask(annotation) > 0] = 1
    return person, crowd & ~person


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_both_planes_of_every_real_image_equal_pycocotools(coco_people, split):
    path = annotation_file(coco_people, split)
    table, coco = load_persons(path), quiet_coco(path)
    assert table.problems == ()
    assert len(table) == len(coco.imgs)
    for row, image_id in enumerate(table.image_id.tolist()):
        for ours, theirs in zip(native_planes(table, row, CacheSpec()), oracle_planes(coco, image_id), strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=str(image_id))


def test_table_of_a_real_file_holds_what_the_file_says(coco_mini):
    path = annotation_file(coco_mini, "train2017")
    table, coco = load_persons(path), quiet_coco(path)
    assert table.image_id.tolist() == [image["id"] for image in coco.dataset["images"]]
    for row in range(len(table)):
        mine = slice(table.first[row], table.first[row + 1])
        theirs = coco.imgToAnns[int(table.image_id[row])]
        assert table.annotation_id[mine].tolist() == [a["id"] for a in theirs]
        assert table.iscrowd[mine].tolist() == [a["iscrowd"] for a in theirs]
        assert table.keypoints[mine].tolist() == [a["num_keypoints"] for a in theirs]
        assert table.area[mine].tolist() == [a["area"] for a in theirs]
    assert rule_counts(table) == {
        "person": 36,
        "keypoints": rule_by_hand(coco, 1),
        "keypoints10": rule_by_hand(coco, 10),
        "all": 80,
    }


def rule_by_hand(coco, least):
    return sum(sum(a["num_keypoints"] for a in coco.imgToAnns[i]) >= least for i in coco.imgs)


@pytest.mark.parametrize("crowd", ["ignore", "person", "drop"])
def test_crowds_go_where_the_rule_says(load, crowd):
    square = [[5, 5, 15, 5, 15, 15, 5, 15]]
    runs = np.zeros((20, 30), np.uint8)
    runs[:, 10:20] = 1
    text = mask_api.encode(np.asfortranarray(runs))
    table = load(
        document(
            [
                {"segmentation": square},
                {"segmentation": {"size": [20, 30], "counts": text["counts"].decode()}, "iscrowd": 1},
            ]
        )
    )
    person, ignore = native_planes(table, 0, CacheSpec(crowd=crowd))
    body = mask_api.decode(mask_api.merge(mask_api.frPyObjects(square, 20, 30)))
    expected = {
        "ignore": (body, runs & (1 - body)),
        "person": (body | runs, np.zeros_like(runs)),
        "drop": (body, np.zeros_like(runs)),
    }[crowd]
    np.testing.assert_array_equal(person, expected[0])
    np.testing.assert_array_equal(ignore, expected[1])


def test_other_categories_are_left_out_and_can_be_chosen(load):
    content = document([{"segmentation": [[1, 1, 9, 1, 9, 9]], "category_id": 2}])
    assert len(load(content).annotation_id) == 0
    assert len(load(content, category="dog").annotation_id) == 1
    with pytest.raises(DatasetError, match="has no category 'cat'; its categories are: person, dog"):
        load(content, category="cat")


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([], "its polygon is empty"),
        ([[]], "its polygon is empty"),
        (None, "no segmentation"),
        ([[1, 2, 3]], "3 numbers, fewer than the 6"),
        ([[1, 1, 9, 1, 9, 9], []], "one of its polygons is empty"),
        ([[1, 1, 1e300, 1, 9, 9]], "not a finite number"),
        ({"size": [20, 31], "counts": [620]}, r"RLE is for \[20, 31\] pixels, its image has \[20, 30\]"),
        ({"size": [20, 30], "counts": "Zé"}, "compressed RLE is malformed"),
        ({"size": [20, 30], "counts": [10, 20]}, "RLE covers 30 pixels, its image has 600"),
        ({"size": [20, 30], "counts": [700, -100]}, "RLE covers 600 pixels"),
    ],
)
def test_an_annotation_that_cannot_be_drawn_is_named(load, segmentation, reason):
    table = load(document([{"segmentation": [[1, 1, 9, 1, 9, 9]]}, {"segmentation": segmentation}]))
    ((image, annotation, said),) = table.problems
    assert (image, annotation) == (0, 2)
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(said)
    assert table.annotation_id.tolist() == [1]
    assert select_images(table, "person").tolist() == [True]


def test_an_annotation_without_an_image_is_named(load):
    table = load(document([{"segmentation": [[1, 1, 9, 1, 9, 9]], "image_id": 8}]))
    assert table.problems == ((-1, 1, "its image 8 is not in the file"),)


def test_four_numbers_are_a_box_as_in_pycocotools(load):
    table = load(document([{"segmentation": [[3, 4, 10, 6]]}]))
    expected = mask_api.decode(mask_api.frPyObjects(np.array([[3.0, 4, 10, 6]]), 20, 30))[:, :, 0]
    np.testing.assert_array_equal(native_planes(table, 0, CacheSpec())[0], expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"images": [{"id": 1, "file_na', r"not valid JSON .* 30 bytes\); it may be cut short"),
        ("[1, 2]", "not a COCO annotation file"),
        ('{"images": [], "annotations": []}', "not a COCO annotation file: .*categories"),
    ],
)
def test_a_broken_file_gets_one_clear_line(load, text, message):
    with pytest.raises(DatasetError, match=message):
        load(text)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DatasetError, match=r"person_keypoints_train2017\.json is missing; unpack"):
        annotation_file(tmp_path, "train2017")


def test_image_ids_must_be_unique(load):
    image = {"id": 7, "file_name": "a.jpg", "height": 2, "width": 2}
    with pytest.raises(DatasetError, match="names 1 image ids twice"):
        load(document([], images=(image, image)))
