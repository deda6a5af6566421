"""COCO JSON -> PersonTable, against pycocotools, and what is said of files that are broken."""

import contextlib
import io
import json
import random
import sys
from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from cache.spec import CacheSpec
from preprocess.annotations.select import rule_counts, select_images
from preprocess.annotations.table import load_persons
from preprocess.build.record import native_planes
from preprocess.errors import DatasetError
from preprocess.raster import POLYGON, RLE


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
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
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
    path = coco_people / "annotations" / f"person_keypoints_{split}.json"
    table, coco = load_persons(path), quiet_coco(path)
    assert table.problems == ()
    assert len(table) == len(coco.imgs)
    for row, image_id in enumerate(table.image_id.tolist()):
        for ours, theirs in zip(native_planes(table, row, CacheSpec()), oracle_planes(coco, image_id), strict=True):
            np.testing.assert_array_equal(ours, theirs, err_msg=str(image_id))


def test_table_of_a_real_file_holds_what_the_file_says(coco_mini):
    path = coco_mini / "annotations" / "person_keypoints_train2017.json"
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


@pytest.mark.parametrize("split", ["train2017", "val2017"])
@pytest.mark.parametrize("name", ["coco_mini", "coco_people"])
def test_table_of_a_real_file_is_what_plain_json_gives(request, name, split):
    path = request.getfixturevalue(name) / "annotations" / f"person_keypoints_{split}.json"
    check_table(load_persons(path), json.loads(path.read_bytes()))


def check_table(table, content, category=1):
    """Compare every array with what loops over a decoded document give, whose shapes are all valid or missing."""
    images, kept, problems, shapes = content["images"], [], [], []
    rows = {image["id"]: row for row, image in enumerate(images)}
    wanted = [annotation for annotation in content["annotations"] if annotation["category_id"] == category]
    problems += [(-1, annotation["id"]) for annotation in wanted if annotation["image_id"] not in rows]
    for row, image in enumerate(images):
        for annotation in wanted:
            if annotation["image_id"] != image["id"]:
                continue
            shape = annotation.get("segmentation")
            if shape is None:
                problems.append((row, annotation["id"]))
                continue
            kept.append((row, annotation))
            shapes.append([(RLE, shape["counts"])] if isinstance(shape, dict) else [(POLYGON, xy) for xy in shape])
    flat = [part for parts in shapes for part in parts]
    numbers = [len(elements) if kind == POLYGON else 0 for kind, elements in flat]
    runs = [len(elements) if kind == RLE else 0 for kind, elements in flat]
    starts = [*accumulate(numbers, initial=0)], [*accumulate(runs, initial=0)]
    expected = {
        "image_id": [image["id"] for image in images],
        "height": [image["height"] for image in images],
        "width": [image["width"] for image in images],
        "first": [sum(owner < row for owner, _ in kept) for row in range(len(images) + 1)],
        "annotation_id": [annotation["id"] for _, annotation in kept],
        "iscrowd": [annotation.get("iscrowd", 0) for _, annotation in kept],
        "keypoints": [annotation.get("num_keypoints", 0) for _, annotation in kept],
        "area": [annotation.get("area", np.nan) for _, annotation in kept],
        "part_start": [*accumulate(map(len, shapes), initial=0)],
        "kind": [kind for kind, _ in flat],
        "start": [starts[0 if kind == POLYGON else 1][at] for at, (kind, _) in enumerate(flat)],
        "length": [n // 2 + r for n, r in zip(numbers, runs, strict=True)],
        "xy": [number for kind, elements in flat if kind == POLYGON for number in elements],
        "counts": [run for kind, elements in flat if kind == RLE for run in elements],
    }
    for name, values in expected.items():
        found = getattr(table, name)
        assert found.dtype == {"iscrowd": np.uint8, "kind": np.uint8, "area": float, "xy": float}.get(name, np.int64)
        np.testing.assert_array_equal(found, np.array(values, found.dtype), err_msg=name)
        assert found.flags.c_contiguous
    assert table.file_name == tuple(image["file_name"] for image in images)
    assert [problem[:2] for problem in table.problems] == problems


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
    assert len(load(content, categories="dog").annotation_id) == 1
    assert len(load(content, categories=["person", "dog"]).annotation_id) == 1
    with pytest.raises(
        DatasetError, match=r"has no category 'cat'; its categories are: 'person', 'dog'; .* --category"
    ):
        load(content, categories="cat")


@pytest.mark.parametrize(
    ("segmentation", "reason"),
    [
        ([], "it has no segmentation, and a box alone makes no mask"),
        ([[]], "its polygon is empty"),
        (None, "no segmentation"),
        ([[1, 2, 3]], "3 numbers, fewer than the 6"),
        ([[1, 1, 9, 1, 9, 9], []], "one of its polygons is empty"),
        ([[1, 1, 1e300, 1, 9, 9]], "not a finite number"),
        ({"size": [20, 31], "counts": [620]}, r"RLE is for \[20, 31\] pixels, its image has \[20, 30\]"),
        ({"size": [20, 30], "counts": "Zé"}, "compressed RLE is malformed"),
        ({"size": [20, 30], "counts": [10, 20]}, "RLE covers 30 pixels, its image has 600"),
        ({"size": [20, 30], "counts": [700, -100]}, "RLE covers 600 pixels"),
        ({"size": [20, 30], "counts": [1.5, 598.5]}, "neither polygons nor an RLE: Expected `int`, got `float`"),
        ({"size": [20, 30], "counts": [2**70]}, "neither polygons nor an RLE: Expected `int` <= 4294967296"),
        ({"counts": [600]}, "neither polygons nor an RLE: Object missing required field `size`"),
        ("PPYo0", 'neither polygons nor an RLE: "PPYo0"'),
        ([[[1, 1, 9, 1, 9, 9]]], "neither polygons nor an RLE: Expected `float`, got `array`"),
        ([[1, 1, 9, 1, 9, "9 px"]], "neither polygons nor an RLE: Expected `float`, got `str`"),
        ([[1, 1, 9, 1], [1, 1, 9, 1, 9, 9]], "mixes boxes and polygons"),
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
        ('{"images": [{"id": 1, "file_na', "not valid JSON from byte 30 of 30 bytes on: it is cut short"),
        ("[1, 2]", "not a COCO annotation file"),
        ('{"images": [], "annotations": []}', "has no categories"),
        ("", "is empty: it has 0 bytes"),
        (b'{"images": [], "\xff": 3}', "not valid JSON from byte 16 of 22 bytes on"),
        ('{"other": ' + 10**5 * "[" + 10**5 * "]" + "}", "not a COCO annotation file: it holds lists within lists"),
        (b'{"images": {"\xb1": {}}, "annotations": []}', "not a COCO annotation file: 'utf-8' codec can't decode"),
        ('{"annotations": [{"id": 9223372036854775808}]}', "not a COCO annotation file: it has no images"),
    ],
)
def test_a_broken_file_gets_one_clear_line(load, text, message):
    with pytest.raises(DatasetError, match=message):
        load(text)


@pytest.mark.parametrize("place", ["id", "name"])
def test_lists_that_some_readers_find_too_deep_and_some_do_not(load, place):
    """Each part of a file is read from another depth of Python's stack."""
    said = set()
    for depth in range(sys.getrecursionlimit() - 100, sys.getrecursionlimit() + 1, 3):
        text = json.dumps(document([{"segmentation": [[1, 1, 9, 1, 9, 9]], place: "@"}]))
        try:
            said.add(len(load(text.replace('"@"', depth * "[" + depth * "]")).annotation_id))
        except DatasetError as error:
            said.add(str(error).rpartition(": ")[2])
    assert said <= {1, "it holds lists within lists without end; export it in the COCO format"}
    assert len(said) == 2


def test_an_image_that_is_there_twice_is_one_unless_the_two_differ(load):
    image = {"id": 7, "file_name": "a.jpg", "height": 20, "width": 30}
    person = {"segmentation": [[1, 1, 9, 1, 9, 9]]}
    table = load(document([person], images=(image, image)))
    assert (table.image_id.tolist(), table.first.tolist(), table.faults) == ([7], [0, 1], {})
    table = load(document([person], images=(image, image | {"width": 31})))
    assert table.image_id.tolist() == [7]
    assert "its id 7 is also that of another image" in table.faults[0]


TRIANGLE = [[1.25, 1, 9, 1, 9, 9.5]]
names = st.text(max_size=5).filter(lambda text: text.isprintable())
optional = {
    "segmentation": st.sampled_from([None, TRIANGLE, TRIANGLE * 2, {"size": [20, 30], "counts": [1, 599]}]),
    "iscrowd": st.integers(0, 1),
    "num_keypoints": st.integers(0, 17),
    "area": st.floats(0, 1e6),
    "bbox": st.just([0.5, 1, 2, 3]),
    "note": names | st.just({"segmentation": [], "id": 9}),
}
person = {"id": st.integers(0, 2**62), "image_id": st.integers(0, 9), "category_id": st.just(1)}
other = {"id": st.just(0), "image_id": st.just(0), "category_id": st.just(2), "segmentation": st.just([["?"]])}
image = {"id": st.integers(0, 9), "file_name": names, "height": st.just(20), "width": st.just(30), "flickr_url": names}


@settings(derandomize=True, database=None, deadline=None, max_examples=60)
@given(
    images=st.lists(st.fixed_dictionaries(image), max_size=6, unique_by=lambda entry: entry["id"]),
    annotations=st.lists(st.fixed_dictionaries(person, optional=optional) | st.fixed_dictionaries(other), max_size=12),
    style=st.sampled_from([{}, {"indent": 2}, {"separators": (",", ":")}, {"indent": "\t", "ensure_ascii": False}]),
    ids=st.sampled_from([range(10), range(-5, 5), [-(2**63), -1, 0, 1, 2, 3, 4, 5, 2**62, 2**63 - 1]]),
    seed=st.integers(0, 99),
)
def test_table_of_any_file_is_what_plain_json_gives(tmp_path_factory, images, annotations, style, ids, seed):
    rng = random.Random(seed)
    images = [{**entry, "id": ids[entry["id"]]} for entry in images]
    annotations = [{**entry, "image_id": ids[entry["image_id"]]} for entry in annotations]

    def shuffled(entry):
        return dict(rng.sample(list(entry.items()), len(entry)))

    content = shuffled(
        {
            "info": {"images": []},
            "images": [shuffled(entry) for entry in images],
            "annotations": [shuffled(entry) for entry in annotations],
            "categories": [{"name": "person", "id": 1, "supercategory": ""}, {"id": 2, "name": "dog"}],
        }
    )
    path = tmp_path_factory.mktemp("coco") / "annotations.json"
    path.write_text(json.dumps(content, **style), encoding="utf-8")
    check_table(load_persons(path), content)


@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel what is mapped")
def test_the_file_is_let_go(load, tmp_path):
    table = load(document([{"segmentation": TRIANGLE}]))
    assert len(table) == 1
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
