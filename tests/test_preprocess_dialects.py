"""Annotation files as other tools write them: what is read, what one fault costs, and what is said of the rest."""

import codecs
import copy
import gzip
import io
import json
import random
import re
import zipfile

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api
from pycocotools.coco import COCO

from cache.spec import CacheSpec
from preprocess.annotations import document
from preprocess.annotations.dialects import read_id
from preprocess.annotations.document import check_ends, read_file_names
from preprocess.annotations.json_kernel import blank_non_finite
from preprocess.annotations.select import select_images
from preprocess.annotations.table import load_persons
from preprocess.build.plan import annotation_problems, read_split
from preprocess.build.record import native_planes
from preprocess.check.statistics import analyze
from preprocess.check.structure import check_structure
from preprocess.check.verify import verify_dataset
from preprocess.errors import DatasetError

HEIGHT, WIDTH, IMAGES = 64, 96, 5
NO_MASK = "annotation 103: it has no segmentation, and a box alone makes no mask"
ODD = 2
"""The row of the image, and the number of the annotation, that most tests change."""

CODE = mask_api.encode(np.asfortranarray(np.pad(np.ones((20, 30), np.uint8), ((10, 34), (40, 26)))))["counts"].decode()
NAN = float("nan")


def polygon(shift=0):
    return [[10 + shift, 8, 60 + shift, 10, 55 + shift, 50, 12 + shift, 52]]


def plain():
    """Five images with one person each, and a dog in the first."""
    images = [{"id": 1 + n, "file_name": f"{n}.jpg", "width": WIDTH, "height": HEIGHT} for n in range(IMAGES)]
    common = {"category_id": 1, "iscrowd": 0, "area": 2000.5, "bbox": [10, 8, 50, 44], "num_keypoints": 0}
    annotations = [
        {"id": 101 + n, "image_id": 1 + n, "segmentation": polygon(n), "keypoints": [], **common} for n in range(IMAGES)
    ]
    annotations.append({**annotations[0], "id": 200, "category_id": 2})
    return {
        "info": {"year": 2017},
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("dialects")
    (root / "annotations").mkdir()
    rng = np.random.default_rng(0)
    (root / "train2017").mkdir()
    for image in plain()["images"]:
        photo = cv2.resize(rng.integers(0, 256, (6, 8, 3), np.uint8), (WIDTH, HEIGHT))
        cv2.imwrite(str(root / "train2017" / image["file_name"]), photo)
    return root


@pytest.fixture
def path(root):
    """Where the annotation file of a test goes."""
    path = root / "annotations" / "instances_train2017.json"
    yield path
    path.unlink(missing_ok=True)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())


def changed(change):
    content = plain()
    return change(content) or content


def every(part, **fields):
    return lambda content: [entry.update(fields) for entry in content[part]] and None


def one(part, **fields):
    return lambda content: content[part][ODD].update(fields)


def without(part, *names, rows=range(IMAGES)):
    return lambda content: [content[part][row].pop(name) for row in rows for name in names] and None


def apply(part, function, *names):
    """Replace a field of each entry by a function of it."""

    def change(content):
        for entry in content[part]:
            entry.update({name: function(entry[name]) for name in names})

    return change


def both(*changes):
    return lambda content: [change(content) for change in changes] and None


def planes(table, row):
    return native_planes(table, row, CacheSpec(), (HEIGHT, WIDTH))


def drawn(segmentation):
    """The mask by pycocotools."""
    api = COCO()
    api.imgs = {1: {"height": HEIGHT, "width": WIDTH}}
    return api.annToMask({"image_id": 1, "segmentation": segmentation})


def assert_others_untouched(table, spared=range(IMAGES)):
    """Compare images with what pycocotools draws of the plain file."""
    rows = {name: row for row, name in enumerate(table.file_name)}
    for number in spared:
        person, ignore = planes(table, rows[f"{number}.jpg"])
        np.testing.assert_array_equal(person, drawn(polygon(number)))
        assert not ignore.any()


def assert_same(one, other):
    for name, value in vars(one).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(other, name), name, strict=True)
        else:
            assert value == getattr(other, name), name


def numbered(entries):
    return {str(entry["id"]): entry for entry in entries}


def renamed(content):
    """All ids but the dog's as text that is no number."""
    for image in content["images"]:
        image["id"] = f"img-{image['id']}"
    for annotation in content["annotations"]:
        annotation["image_id"] = f"img-{annotation['image_id']}"


def huge(content):
    content["images"][ODD]["id"] = content["annotations"][ODD]["image_id"] = 2**64 + 5


def keyed(content):
    """Objects of id -> entry, without ids of their own."""
    for part in ("images", "annotations", "categories"):
        content[part] = {str(entry.pop("id")): entry for entry in content[part]}


READ = {
    "plain": lambda _: None,
    **{f"iscrowd {value!r}": every("annotations", iscrowd=value) for value in (False, None, "0", 0.0, NAN, "0.0")},
    "iscrowd of one": one("annotations", iscrowd=None),
    "no iscrowd": without("annotations", "iscrowd"),
    **{f"num_keypoints {value!r}": every("annotations", num_keypoints=value) for value in (None, "0", 0.0, NAN, False)},
    "no num_keypoints": without("annotations", "num_keypoints"),
    **{f"area {value!r}": every("annotations", area=value) for value in ("7", None, NAN, "big", [], float("inf"), {})},
    "area beyond float": lambda c: json.dumps(c).replace("2000.5", "1e999").encode(),
    "bbox NaN": every("annotations", bbox=[NAN] * 4),
    "info NaN": lambda c: c["info"].update(year=NAN, text='"NaN" \\"Infinity\\ NaN', far=[float("inf"), -float("inf")]),
    "ids as text": both(
        apply("images", str, "id"),
        apply("annotations", str, "id", "image_id", "category_id"),
        apply("categories", str, "id"),
    ),
    "ids as float": both(
        apply("images", float, "id"),
        apply("annotations", float, "id", "image_id", "category_id"),
        apply("categories", float, "id"),
    ),
    "image_id as text": apply("annotations", str, "image_id"),
    "id of images as text": apply("images", str, "id"),
    "category_id as float": apply("annotations", float, "category_id"),
    "ids from 0": both(apply("images", lambda n: n - 1, "id"), apply("annotations", lambda n: n - 1, "image_id")),
    "names as ids": renamed,
    "huge id": huge,
    "no annotation id": without("annotations", "id", rows=range(IMAGES + 1)),
    "annotation id null": every("annotations", id=None),
    "sizes as float": apply("images", float, "width", "height"),
    "sizes as text": apply("images", str, "width", "height"),
    "sizes as text of floats": apply("images", lambda n: f"{n}.0", "width", "height"),
    "images as object": lambda c: c.update(images=numbered(c["images"])),
    "annotations as object": lambda c: c.update(annotations=numbered(c["annotations"])),
    "objects without ids": keyed,
    "an image twice": lambda c: c["images"].append(dict(c["images"][ODD])),
    "an image twice, as text": lambda c: c["images"].append({**c["images"][ODD], "id": "3", "width": "96"}),
    "other categories are not looked at": lambda c: c["annotations"][-1].update(
        image_id=None, iscrowd="?", segmentation=7
    ),
    "more keys": every("annotations", score=1, attributes={"occluded": False}, caption='a "quoted, [text'),
    "half a surrogate in a text": every("annotations", caption="\ud800 \U0001f600 \udc00"),
    "no text in a category": lambda c: c["categories"].append({"id": 3, "name": None}),
    "no entry in categories": lambda c: c["categories"].append(None),
    "an unused category of the same name": lambda c: c["categories"].insert(0, {"id": 0, "name": "person"}),
    "BOM": lambda c: codecs.BOM_UTF8 + json.dumps(c).encode(),
    "gzip": lambda c: gzip.compress(json.dumps(c).encode()),
    "gzip with BOM, NaN and NULs": lambda c: gzip.compress(
        codecs.BOM_UTF8 + json.dumps(c | {"x": NAN}).encode() + b"\n\0"
    ),
    "white space around": lambda c: b"\r\n\t " + json.dumps(c, indent="\t").encode() + b" \r\n\n",
    "NULs behind": lambda c: json.dumps(c).encode() + b"\n" + bytes(3 << 20),
}


@pytest.mark.parametrize("name", READ)
def test_what_is_unambiguous_is_read(path, root, monkeypatch, name):
    write(path, changed(READ[name]))
    table = load_persons(path)
    assert len(table) == IMAGES
    assert (table.problems, table.faults) == ((), {})
    assert_others_untouched(table)
    area = [NAN] * IMAGES if name.startswith("area") else [2000.5] * IMAGES
    np.testing.assert_array_equal(table.area, [7.0] * IMAGES if name == "area '7'" else area)
    assert read_file_names(path) == [f"{number}.jpg" for number in range(IMAGES)]
    ids = {"no annotation id": range(1, 6), "annotation id null": range(1, 6)}.get(name, range(101, 106))
    assert table.annotation_id.tolist() == [*ids]
    assert [check for check in check_structure(root) if check.problem] == []
    monkeypatch.setattr(document, "ONE_PIECE", 0)
    for piece in (0, 300, 10**9):
        monkeypatch.setattr(document, "PIECE", piece)
        assert_same(load_persons(path), table)


def test_crowds_of_every_spelling(path):
    for value in (1, True, "1", 1.0, "1.0", 2):
        write(path, changed(one("annotations", iscrowd=value)))
        table = load_persons(path)
        assert table.iscrowd.tolist() == [0, 0, 1, 0, 0]
        person, ignore = planes(table, ODD)
        assert not person.any()
        np.testing.assert_array_equal(ignore, drawn(polygon(ODD)))


TRIANGLE = [10, 8, 60, 10, 55, 50]
RLE_MASK = mask_api.decode({"size": [HEIGHT, WIDTH], "counts": CODE})
RUNS = [1000, 100, HEIGHT * WIDTH - 1100]


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        ([["10", "8", "60", "10", "55", "50"]], [TRIANGLE]),
        ([["10", 8, "60", "1e1", 55.0, "50"]], [TRIANGLE]),
        (TRIANGLE, [TRIANGLE]),
        ([*TRIANGLE, 7], [[*TRIANGLE, 7]]),
        ([*map(str, TRIANGLE)], [TRIANGLE]),
        ([[[10, 8], [60, 10], [55, 50]]], [TRIANGLE]),
        ([[["10", 8], [60, 10], [55, 50]], [[1, 1], [9, 1], [9, 9], [1, 9]]], [TRIANGLE, [1, 1, 9, 1, 9, 9, 1, 9]]),
        ([[10, 8], [60, 10], [55, 50]], [TRIANGLE]),
        ([[10, 8], [60, 10], [55, 50], [9, 9]], [[*TRIANGLE, 9, 9]]),
        ([["10", "8"], ["60", "10"], ["55", "50"]], [TRIANGLE]),
        ([[10, 10, 20, 10, 30]], [[10, 10, 20, 10, 30]]),
        ([[*TRIANGLE, 7], [5, 5]], [[*TRIANGLE, 7], [5, 5]]),
        ([TRIANGLE, [70, 5, 80, 9]], [TRIANGLE, [70, 5, 80, 9]]),
        ({"size": ["64", "96"], "counts": RUNS}, {"size": [64, 96], "counts": RUNS}),
        ({"size": [64.0, 96.0], "counts": RUNS}, {"size": [64.0, 96.0], "counts": RUNS}),
        ({"size": [64, 96, 1], "counts": RUNS, "note": {}}, {"size": [64, 96, 1], "counts": RUNS}),
        ({"size": [64, 96], "counts": [*map(float, RUNS)]}, {"size": [64, 96], "counts": [*map(float, RUNS)]}),
        ({"size": [64, 96], "counts": [*map(str, RUNS)]}, {"size": [64, 96], "counts": [*map(str, RUNS)]}),
        ({"size": [64.0, "96"], "counts": CODE}, {"size": [64, 96], "counts": CODE}),
        ({"size": [64, 96], "counts": repr(CODE.encode())}, {"size": [64, 96], "counts": CODE}),
        ({"size": [64, 96], "counts": f'b"{repr(CODE)[1:-1]}"'}, {"size": [64, 96], "counts": CODE}),
        (
            [{"size": [64, 96], "counts": RUNS}, {"size": [64, 96], "counts": [0, 64, 64 * 95]}],
            [{"size": [64, 96], "counts": RUNS}, {"size": [64, 96], "counts": [0, 64, 64 * 95]}],
        ),
    ],
)
def test_segmentations_of_every_spelling_are_drawn_as_pycocotools_draws_them(path, segmentation, expected):
    assert "\\" in CODE  # which Python's text of bytes has twice
    write(path, changed(one("annotations", segmentation=segmentation)))
    table = load_persons(path)
    assert table.problems == ()
    np.testing.assert_array_equal(planes(table, ODD)[0], drawn(expected))
    assert_others_untouched(table, (0, 1, 3, 4))


def segmentation(value):
    return one("annotations", segmentation=value)


RLE = {"size": [HEIGHT, WIDTH], "counts": CODE}
COSTS = {
    "category_id null": (one("annotations", category_id=None), "annotation 103: its category_id is null, not an id"),
    "no category_id": (without("annotations", "category_id", rows=[ODD]), "annotation 103: it has no category_id"),
    "category_id a list": (one("annotations", category_id=[1]), r"annotation 103: its category_id is \[1\], not an id"),
    "iscrowd text": (one("annotations", iscrowd="no"), 'annotation 103: its iscrowd is "no", not a whole number'),
    "iscrowd a list": (one("annotations", iscrowd=[0]), r"annotation 103: its iscrowd is \[0\], not a whole number"),
    "num_keypoints text": (one("annotations", num_keypoints="many"), 'its num_keypoints is "many", not a whole number'),
    "iscrowd a half": (one("annotations", iscrowd=0.5), "annotation 103: its iscrowd is 0.5, not a whole number"),
    "iscrowd an empty list": (one("annotations", iscrowd=[]), r"103: its iscrowd is \[\], not a whole number"),
    "num_keypoints huge": (one("annotations", num_keypoints=1e300), "its num_keypoints is 1e\\+300, not a whole"),
    "NaN in a polygon": (segmentation([[10, 8, 60, NAN, 55, 50]]), "103: a coordinate is not a finite number"),
    "Infinity in a polygon": (segmentation([[10, 8, 60, -float("inf"), 55, 50]]), "coordinate is not a finite number"),
    "null in a polygon": (segmentation([[10, 8, 60, None, 55, 50]]), "103: its segmentation is neither polygons nor"),
    "NaN in a flat polygon": (segmentation([10, 8, 60, NAN, 55, 50]), "103: a coordinate is not a finite number"),
    "NaN in a pair": (segmentation([[[10, 8], [60, NAN], [55, 50]]]), "103: a coordinate is not a finite number"),
    "text in a polygon": (segmentation([["a", 8, 60, 1, 55, 50]]), "neither polygons nor an RLE"),
    "name of a mask": (segmentation("masks/1.png"), 'neither polygons nor an RLE: "masks/1.png"'),
    "two pairs": (segmentation([[[10, 8], [60, 10]]]), "neither polygons nor an RLE"),
    "five numbers": (segmentation(TRIANGLE[:5]), "neither polygons nor an RLE"),
    "a box of numbers": (segmentation([1, 2, 3, 4]), "neither polygons nor an RLE"),
    "triples": (segmentation([[[10, 8, 2], [60, 10, 2], [55, 50, 2]]]), "neither polygons nor an RLE"),
    "RLE of another size": (segmentation(RLE | {"size": [96, 64]}), r"its RLE is for \[96, 64\] pixels"),
    "RLE size not whole": (segmentation(RLE | {"size": [64.5, 96]}), "neither polygons nor an RLE"),
    "bytes without an end": (segmentation(RLE | {"counts": f"b'{CODE}"}), "RLE"),
    "bytes that are none": (segmentation(RLE | {"counts": "b'\\xzz'"}), "RLE"),
    "counts NaN": (segmentation(RLE | {"counts": [NAN, 6144]}), "neither polygons nor an RLE"),
    "no segmentation": (without("annotations", "segmentation", rows=[ODD]), NO_MASK),
    "segmentation empty": (segmentation([]), NO_MASK),
    "file_name null": (one("images", file_name=None), "^its file_name is null, not text$"),
    "file_name NaN": (one("images", file_name=NAN), "^its file_name is NaN, not text$"),
    "file_name a number": (one("images", file_name=12), "^its file_name is 12, not text$"),
    "no file_name": (without("images", "file_name", rows=[ODD]), "^it has no file_name$"),
    "file_name not UTF-8": (
        lambda c: json.dumps(c).encode().replace(b"2.jpg", b"\xe9.jpg"), '^its file_name is "�.jpg"'
    ),
    **{
        f"width {value!r}": (one("images", width=value), f"^its width is {re.escape(json.dumps(value))}, not a whole")
        for value in (None, 0, -1, 96.5, "wide", [96], 2**31, NAN)
    },
    "no height": (without("images", "height", rows=[ODD]), "^it has no height$"),
    "no size": (without("images", "height", "width", rows=[ODD]), "^it has no height$"),
    "no size of an RLE": (both(one("images", height=None), segmentation(RLE)), "^its height is null, not a whole"),
    "one id for two images": (
        lambda c: c["images"].append({**c["images"][ODD], "file_name": "other.jpg"}),
        r"^its id 3 is also that of another image \('2.jpg', 'other.jpg'\)",
    ),
    "one id for two sizes": (lambda c: c["images"].insert(0, {**c["images"][ODD], "width": 7}), "^its id 3 is also"),
}  # fmt: skip


@pytest.mark.parametrize("name", COSTS)
def test_a_fault_costs_its_image_and_says_why(path, root, monkeypatch, name):
    change, reason = COSTS[name]
    write(path, changed(change))
    table = load_persons(path)
    ((row, said),) = annotation_problems(table).items()
    assert table.image_id[row] == 1 + ODD
    with pytest.raises(DatasetError, match=reason):
        raise DatasetError(said)
    assert select_images(table, "person").all()
    assert_others_untouched(table, (0, 1, 3, 4))
    split = read_split(root, "train", CacheSpec(side=64))
    assert (split.rows, split.problems, split.orphans) == ([*range(IMAGES)], {row: said}, ())
    (finding,) = verify_dataset(root).findings
    assert finding.image_id == 1 + ODD
    assert said.endswith(finding.reason)
    assert finding.annotation_id == (None if row in table.faults else 103)
    with np.errstate(all="raise"):
        assert analyze(table).width.minimum == (7 if name == "one id for two sizes" else WIDTH)
    monkeypatch.setattr(document, "ONE_PIECE", 0)
    monkeypatch.setattr(document, "PIECE", 300)
    assert_same(load_persons(path), table)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (one("annotations", image_id=None), "annotation 103: its image_id is null, not an id"),
        (one("annotations", image_id=True), "annotation 103: its image_id is true, not an id"),
        (one("annotations", image_id=1.5), "annotation 103: its image_id is 1.5, not an id"),
        (one("annotations", image_id="no such"), "annotation 103: its image [0-9]+ is not in the file"),
        (without("annotations", "image_id", rows=[ODD]), "annotation 103: it has no image_id"),
        (lambda c: c["annotations"].insert(0, 4), "annotation 1: it is 4, not an object"),
        (lambda c: c["annotations"].append([]), r"annotation 7: it is \[\], not an object"),
        (lambda c: c["images"].insert(1, None), "^image 2 of the file: it is null, not an object$"),
        (lambda c: c["images"].append({"file_name": "x.jpg"}), "^image 6 of the file: it has no id$"),
        (lambda c: c["images"].append({"id": NAN}), "^image 6 of the file: its id is NaN, not an id$"),
        (lambda c: c["images"].append({"id": False}), "^image 6 of the file: its id is false, not an id$"),
    ],
)
def test_an_entry_that_belongs_to_no_image_is_named_by_the_file(path, root, change, reason):
    write(path, changed(change))
    split = read_split(root, "train", CacheSpec(side=64, images="all"))
    (orphan,) = split.orphans
    with pytest.raises(DatasetError, match=reason):
        raise DatasetError(orphan.reason)
    assert split.problems == {}
    lost = (ODD,) if "103" in reason else ()
    assert_others_untouched(split.table, [number for number in range(IMAGES) if number not in lost])
    (finding,) = verify_dataset(root, CacheSpec(images="all")).findings
    assert (finding.file, finding.image_id) == (path.name, None)
    assert finding.kind == ("file" if reason.startswith("^image") else "annotation")


def test_images_whose_only_keypoints_cannot_be_drawn_are_selected_by_them(path):
    for fields in ({"segmentation": []}, {"category_id": None}, {"iscrowd": "?"}):
        write(path, changed(one("annotations", num_keypoints=10, **fields)))
        table = load_persons(path)
        for rule in ("keypoints", "keypoints10"):
            assert select_images(table, rule).tolist() == [row == ODD for row in range(IMAGES)]
    write(path, changed(both(one("annotations", num_keypoints=9), one("images", width=None))))
    table = load_persons(path)
    assert select_images(table, "keypoints").tolist() == [row == ODD for row in range(IMAGES)]
    assert not select_images(table, "keypoints10").any()


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *((value, value) for value in (0, 5, -5, 2**63 - 1, -(2**63))),
        *((str(value), value) for value in (0, 5, -5, 2**63 - 1, -(2**63))),
        *((value, None) for value in (None, True, False, 1.5, NAN, float("inf"), [], {})),
        (12.0, 12),
        (-0.0, 0),
    ],
)
def test_ids_are_numbers(value, number):
    assert read_id(value) == number


def test_ids_that_no_int64_holds_are_digests():
    for value in ("012", "-0", "1.0", " 1", "a", "", str(2**63), "Ωmega"):
        assert 0 <= read_id(value) < 2**63
    assert read_id(2**63) == read_id(str(2**63)) == read_id(float(2**63))
    assert len({read_id(str(number)) for number in range(2**63, 2**63 + 1000)}) == 1000
    assert read_id("a") == 0xE6C632B61E964E1F >> 1  # of XXH3's reference implementation


def categories(content, *pairs, use=()):
    content["categories"] = [{"id": number, "name": name} for number, name in pairs]
    for annotation, number in zip(content["annotations"], use, strict=False):
        annotation["category_id"] = number


def test_categories_are_chosen_by_name_or_id(path):
    write(
        path, changed(lambda c: categories(c, (0, "person"), (1, "person"), (2, "dog"), (3, "2"), use=(0, 1, 1, 2, 3)))
    )

    def owners(*wanted):
        return np.flatnonzero(np.diff(load_persons(path, wanted).first)).tolist()

    assert owners("0") == [0]
    assert owners("1") == [1, 2]
    assert owners("0", "1") == [0, 1, 2]
    assert owners("dog") == [0, 3]  # the last annotation is of the first image
    assert owners("2") == [4]  # a name goes before an id
    assert owners("1", "dog", "dog") == [0, 1, 2, 3]
    with pytest.raises(DatasetError, match=r"several categories 'person'; .* --category 0 or --category 1, or both"):
        owners("person")
    with pytest.raises(
        DatasetError, match=r"no category 'cat'; its categories are: 'person' \(id 0\), 'person' \(id 1\), 'dog', '2'"
    ):
        owners("dog", "cat")
    assert load_persons(path, "1").annotation_id.tolist() == [102, 103]


@pytest.mark.parametrize(("there", "asked"), [("Person", "person"), ("person ", "person"), ("person", " PERSON")])
def test_a_category_that_is_nearly_the_one_is_named(path, there, asked):
    write(path, changed(lambda c: c["categories"][0].update(name=there)))
    with pytest.raises(DatasetError, match=f"no category '{asked}'; did you mean --category '{there}'\\?"):
        load_persons(path, asked)


@pytest.mark.parametrize("change", [lambda c: c.pop("categories") and None, lambda c: c.update(categories=None)])
def test_without_categories_the_ids_are_named(path, change):
    write(path, changed(change))
    with pytest.raises(DatasetError, match=r"has no categories; .* ids 1 and 2: .* --category 1$"):
        load_persons(path)
    assert_others_untouched(load_persons(path, "1"))
    with pytest.raises(DatasetError, match="has no categories"):
        load_persons(path, "7")
    write(path, {"images": [], "annotations": []})
    with pytest.raises(DatasetError, match="has no categories, and no annotations"):
        load_persons(path)


def archive(text):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        packed.writestr("annotations.json", text)
    return buffer.getvalue()


TEXT = json.dumps(plain())
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
BROKEN = {
    "UTF-16": (TEXT.encode("utf-16"), "byte 0 of .* UTF-16 or UTF-32; save it as UTF-8", True),
    "UTF-16 without BOM": (TEXT.encode("utf-16-le"), "byte 1 of .* UTF-16 or UTF-32", True),
    "UTF-16, big-endian": (TEXT.encode("utf-16-be"), "byte 0 of .* UTF-16 or UTF-32", True),
    "UTF-32": (TEXT.encode("utf-32"), "UTF-16 or UTF-32", True),
    "single quotes": (repr(plain()).encode(), "byte 1 of .* single quotes .* json.dump", False),
    "None": (TEXT.replace("2000.5", "None").encode(), f"byte {TEXT.index('2000.5'):,} of .* json.dump", False),
    "JSON Lines": (f"{TEXT}\n{TEXT}\n".encode(), f"byte {len(TEXT) + 1:,} of .* as in JSON Lines", False),
    "BOM and JSON Lines": (
        codecs.BOM_UTF8 + f"{TEXT}\n{TEXT}".encode(), f"byte {len(TEXT) + 4:,} of .* as in JSON Lines", False,
    ),
    "ZIP": (archive(TEXT), "byte 0 of .* ZIP archive; unpack it", True),
    "web page": (b"\n<!DOCTYPE html><html></html>", "byte 1 of .* web page or XML", True),
    "XML": (b'<?xml version="1.0"?><annotations/>', "byte 0 of .* web page or XML", True),
    "LFS": (LFS, "byte 0 of .* Git LFS pointer; .*`git lfs pull`", True),
    "empty": (b"", "is empty: it has 0 bytes", True),
    "NULs": (bytes(5000), "is empty: it has 5,000 bytes", True),
    "blank": (b" \n", "is empty: it has 2 bytes", True),
    "cut short": (TEXT[:900].encode(), "byte 900 of 900 bytes on: it is cut short; copy or export it again", True),
    "cut short, then NULs": (TEXT[:900].encode() + bytes(900), "byte 900 of 1,800 bytes on: it is cut short", True),
    "cut short with NaN": (b'{"x": NaN, "images": [', "byte 22 of 22 bytes on: it is cut short", True),
    "comma too many": (b'{"images": [], }', "byte 15 of .* on: trailing comma .* at '}'; mend it there", False),
    "text behind": (TEXT.encode() + b"; {}", f"byte {len(TEXT):,} of .* at '; {{}}'", False),
    "gzip cut short": (gzip.compress(TEXT.encode())[:-20], "damaged gzip file .*; copy or export it again", False),
    "gzip changed": (gzip.compress(TEXT.encode())[:-8] + bytes(8), "damaged gzip file", False),
    "gzip of nothing": (gzip.compress(b""), "is empty", False),
    "list": (b'[{"id": 1, "annotations": [], "data": {}}]', "not a COCO annotation file: it is a list; export", True),
    "list of what Python cannot hold": (b"[1e999]", "not a COCO annotation file: it is a list; export", True),
    "empty list": (b"[]", "not a COCO annotation file: it is a list", True),
    "number": (b"12", "not a COCO annotation file: it is 12", True),
    "other keys": (b'{"shapes": [], "version": 5}', "it has no images; its keys are shapes, version; export", False),
    "no annotations": (b'{"images": [], "info": 5}', "it has no annotations; its keys are images, info", False),
    "images null": (b'{"images": null, "annotations": []}', "its images are null, not a list", False),
    "annotations text": (b'{"images": [], "annotations": "none"}', 'its annotations are "none", not a list', False),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_coco_file_is_told_by_its_kind(path, root, monkeypatch, name):
    content, reason, seen_at_once = BROKEN[name]
    write(path, content)
    for limit in (document.ONE_PIECE, 0):
        monkeypatch.setattr(document, "ONE_PIECE", limit)
        for read in (load_persons, read_file_names):
            with pytest.raises(DatasetError, match=reason) as failure:
                read(path)
            assert "get it again" not in str(failure.value)
    checks = [each for each in check_structure(root) if each.kind == "annotation_file" and each.split == "train"]
    assert [check.problem for check in checks] == ([str(failure.value)] if seen_at_once else [""])


def test_the_ends_of_a_sound_file_are_enough(path, monkeypatch):
    write(path, json.dumps(plain()).encode() + bytes(100))
    monkeypatch.setattr(document, "_read_frame", None)
    check_ends(path)


def test_a_full_disk_is_told_with_what_to_do(path, monkeypatch):
    def fail(**_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(document, "TemporaryFile", fail)
    for content in (gzip.compress(TEXT.encode()), TEXT.replace("2000.5", "NaN").encode()):
        write(path, content)
        with pytest.raises(DatasetError, match="No space left on device; name another folder in TMPDIR"):
            load_persons(path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": NaN}', '{"a": [ ]}'),
        ("[NaN,-Infinity,Infinity, -1]", "[[ ],[       ],[      ], -1]"),
        ('["NaN", "\\"NaN", "\\\\", NaN]', '["NaN", "\\"NaN", "\\\\", [ ]]'),
        ('"\\ud83d\\ude00 \\uD800 \\ud800\\ud800\\udc00 \\\\ud800"',
         '"\\ud83d\\ude00 \\ufffd \\ufffd\\ud800\\udc00 \\\\ud800"'),
        ('"\\udc00', '"\\ufffd'),
        ("Na", "Na"),
        ("Infinit", "Infinit"),
        ('"\\ud80', '"\\ud80'),
        ('"\\', '"\\'),
        ("", ""),
    ],
)  # fmt: skip
def test_what_only_python_writes_is_replaced_in_place(text, expected):
    data = np.frombuffer(bytearray(text.encode() or b"-"), np.uint8)[: len(text)]
    blank_non_finite(data)
    assert data.tobytes().decode() == expected


ANYTHING = [
    *(None, True, False, 0, -1, 3, 2**31, 2**63, 2**64, -(2**70), 0.5, 1e300, NAN, float("inf"), -float("inf")),
    *(
        "",
        "0",
        "3",
        "3.5",
        "x",
        "NaN",
        "\0",
        "\ud800",
        "é" * 200,
        "b'P'",
        [],
        {},
        [[]],
        [None],
        [1, 2],
        [[1, 2]],
        [NAN],
    ),
    *([["1", 2, 3, 4, 5, 6]], {"size": [64, 96], "counts": [6144]}, {"size": 5, "counts": "1"}, [[[1, 2]]], {"id": 3}),
]
FIELDS = {
    "images": ["id", "file_name", "width", "height", "extra"],
    "annotations": ["id", "image_id", "category_id", "iscrowd", "num_keypoints", "area", "segmentation", "extra"],
}


def odd_file(chance):
    """A file with one to three odd values in the entries of one image; and what they are."""
    content, done = plain(), []
    for _ in range(chance.randint(1, 3)):
        part, value = chance.choice([*FIELDS]), copy.deepcopy(chance.choice(ANYTHING))
        if not isinstance(content[part][ODD], dict):
            continue
        field = chance.choice([None, *FIELDS[part]])
        done.append((part, field, value))
        if field is None:
            content[part][ODD] = value
        elif chance.random() < 0.1:
            content[part][ODD].pop(field, None)
        else:
            content[part][ODD][field] = value
    return content, done


def test_any_odd_values_leave_the_other_images_as_they_are(path, root, monkeypatch):
    chance = random.Random(0)
    for number in range(1500):
        content, done = odd_file(chance)
        write(path, content)
        monkeypatch.setattr(document, "ONE_PIECE", 0 if number % 3 == 0 else 2**20)
        table = load_persons(path)
        rows = {int(image): row for row, image in enumerate(table.image_id)}
        problems = annotation_problems(table)
        spared = [row for row in range(IMAGES) if row != ODD and not moved(content, row)]
        assert len(spared) >= IMAGES - 2
        for row in spared:
            assert 1 + row in rows, done
            assert rows[1 + row] not in problems, done
            person, ignore = planes(table, rows[1 + row])
            np.testing.assert_array_equal(person, drawn(polygon(row)), err_msg=str(done))
            assert not ignore.any(), done
        if number % 20 == 0:
            split = read_split(root, "train", CacheSpec(side=64))
            assert set(split.problems) >= set(problems)
            verify_dataset(root)


def moved(content, row):
    """Whether the odd entries have the id of another image: they then are entries of that one."""
    ids = [content[part][ODD].get(name) if isinstance(content[part][ODD], dict) else None
           for part, name in (("images", "id"), ("annotations", "image_id"))]  # fmt: skip
    return 1 + row in [read_id(one) for one in ids]


def test_any_odd_values_at_the_top_give_a_table_or_one_clear_error(path):
    chance = random.Random(1)
    for _ in range(500):
        content = plain()
        for _ in range(chance.randint(1, 2)):
            name = chance.choice(["images", "annotations", "categories", "info"])
            value = copy.deepcopy(chance.choice(ANYTHING))
            if name == "categories" and chance.random() < 0.7:
                place = chance.choice([0, {"id": 1}, "id", "name"])
                entries = content["categories"] if isinstance(content["categories"], list) else []
                if place in ("id", "name") and entries and isinstance(entries[0], dict):
                    entries[0][place] = value
                elif entries:
                    entries[0] = value
            else:
                content[name] = value
        write(path, content)
        try:
            load_persons(path)
        except DatasetError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_any_cut_or_flipped_byte_gives_a_table_or_one_clear_error(path):
    chance = random.Random(2)
    text = json.dumps(plain() | {"info": {"x": NAN}}).encode()
    for _ in range(1500):
        data = bytearray(text)
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.choice(b'\0"\\{}[],:-.19aNI\xff\xe9 \n')
        write(path, bytes(data[: chance.choice([len(data), len(data), chance.randrange(len(data))])]))
        for read in (load_persons, read_file_names):
            try:
                read(path)
            except DatasetError as error:
                assert str(path) in str(error)  # noqa: PT017
