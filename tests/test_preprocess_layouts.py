"""Datasets as labelling tools write them: which files are found, and that their records are those of COCO's layout."""

import json
import shlex
import shutil
import unicodedata
from itertools import combinations

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from cache.reader import CacheReader
from cache.spec import CacheSpec
from cli import main
from preprocess.build.build import BuildConfig, build_cache
from preprocess.build.changes import find_changes
from preprocess.check.structure import check_structure
from preprocess.check.verify import verify_dataset
from preprocess.dataset import named_files, open_dataset, read_content
from preprocess.errors import DatasetError
from preprocess.layouts import recognise
from preprocess.photos import PhotoFolder

SIZE = (64, 96)


def document(names, first=1):
    """COCO's document of photos, with one polygon each, which differs from photo to photo."""
    images = [{"id": n, "file_name": name, "height": SIZE[0], "width": SIZE[1]} for n, name in enumerate(names, first)]
    annotations = [
        {"id": n, "image_id": n, "category_id": 1, "iscrowd": 0, "area": 2000.0,
         "segmentation": [[10 + n % 7, 8, 60, 10, 55, 50, 12, 52]]}
        for n in range(first, first + len(names))
    ]  # fmt: skip
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}


def write_photo(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(small, SIZE[::-1], interpolation=cv2.INTER_CUBIC))


def write(annotations, photos, names=tuple(f"{n}.jpg" for n in range(1, 7)), first=1, stored=None):
    """Write photos, numbered from `first`, which also seeds them, and their annotation file."""
    for seed, name in enumerate(stored or names, first):
        write_photo(photos / name, seed)
    annotations.parent.mkdir(parents=True, exist_ok=True)
    annotations.write_text(json.dumps(document(names, first)))


def records(coco, out, split="train", spec=None):
    """The records of a split, in the order of the image ids."""
    spec = spec or CacheSpec(side=64)
    report = build_cache(BuildConfig(coco=coco, out=out, spec=spec, splits=(split,)))
    assert not report.rejections
    with CacheReader(out, split) as reader:
        ids = reader.samples["image_id"].tolist()
        return {number: reader.record(sample).tobytes() for sample, number in enumerate(ids)}


LAYOUTS = {
    "COCO 2017": [
        ("annotations/instances_train2017.json", "train2017"),
        ("annotations/instances_val2017.json", "val2017"),
    ],
    "COCO 2014": [
        ("annotations/instances_train2014.json", "train2014"),
        ("annotations/instances_val2014.json", "val2014"),
    ],
    "COCO 2017, images/": [
        ("annotations/instances_train2017.json", "images/train2017"),
        ("annotations/instances_val2017.json", "images/val2017"),
    ],
    "Roboflow": [("train/_annotations.coco.json", "train"), ("valid/_annotations.coco.json", "valid")],
    "CVAT": [
        ("annotations/instances_Train.json", "images/Train"),
        ("annotations/instances_Validation.json", "images/Validation"),
    ],
    "CVAT, default": [("annotations/instances_default.json", "images/default")],
    "CVAT, flat": [("annotations/instances_default.json", "images")],
    "CVAT, own subset": [("annotations/instances_job_7.json", "images/job_7")],
    "CVAT, short names": [("annotations/train.json", "images/train"), ("annotations/val.json", "images/val")],
    "CVAT, one file": [("annotations/instances.json", "images")],  # as Supervisely exports a dataset
    "Supervisely": [
        ("train/annotations/instances.json", "train/images"),
        ("val/annotations/instances.json", "val/images"),
    ],
    "Label Studio": [("result.json", "images")],
    "FiftyOne": [("labels.json", "data")],
    "FiftyOne, splits": [("train/labels.json", "train/data"), ("validation/labels.json", "validation/data")],
}  # fmt: skip
"""Annotation file and folder of photos of each split, train first; the layout is the name up to a comma."""


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_recognised_named_and_read(layout, tmp_path):
    for number, (file, folder) in enumerate(LAYOUTS[layout]):
        write(tmp_path / "data" / file, tmp_path / "data" / folder, first=1 + 1000 * number)
    splits = ["train", "val"][: len(LAYOUTS[layout])]
    found, files = recognise(tmp_path / "data")
    assert found == layout.partition(",")[0]
    assert list(files) == splits
    checks = check_structure(tmp_path / "data")
    assert all(check.ok for check in checks), [check.problem for check in checks]
    assert checks[1].note.startswith(f"{found}: {' and '.join(splits)}")
    report = verify_dataset(tmp_path / "data")
    assert report.sound, report.findings
    assert (report.layout, [split.checked for split in report.splits]) == (found, [6] * len(splits))
    for number, split in enumerate(splits):
        write(tmp_path / "plain/a.json", tmp_path / "plain/photos", first=1 + 1000 * number)
        plain = named_files({"train-json": tmp_path / "plain/a.json", "train-images": tmp_path / "plain/photos"})
        ours = records(tmp_path / "data", tmp_path / f"cache {split}", split)
        assert ours == records(plain, tmp_path / f"plain {split}")
        assert not [
            change for change in find_changes(tmp_path / f"cache {split}", tmp_path / "data") if not change.none
        ]


def test_which_annotation_file_of_coco_is_read(tmp_path):
    folder = tmp_path / "annotations"
    folder.mkdir()
    (tmp_path / "train2017").mkdir()

    def found():
        read_content(tmp_path, "train", CacheSpec())

    for name in ("captions_train2017.json", "people_val2017.json"):
        (folder / name).touch()
    with pytest.raises(DatasetError, match=r"keypoints_train2017\.json is missing; unpack annotations_trainval2017"):
        found()
    for name in ("people", "instances", "person_keypoints"):
        (folder / f"{name}_train2017.json").touch()
        with pytest.raises(DatasetError, match=rf"/{name}_train2017\.json"):
            found()
        (folder / "dogs_train2017.json").touch()
        if name == "people":
            with pytest.raises(DatasetError, match=r"2 files for train2017 \(dogs_.*to be read instances_train2017"):
                found()


def test_another_folder_gets_no_advice_to_fetch_coco(tmp_path):
    (tmp_path / "holiday.jpg").touch()
    (tmp_path / "notes.json").touch()
    with pytest.raises(DatasetError, match=r"holds holiday.jpg, notes.json.*--train-json") as error:
        open_dataset(tmp_path)
    assert "download" not in str(error.value)
    assert "zip" not in str(error.value)
    (tmp_path / "set").mkdir()
    write(tmp_path / "set/train/_annotations.coco.json", tmp_path / "set/train")
    with pytest.raises(DatasetError, match=r"did you mean .*/set"):
        open_dataset(tmp_path)
    result = CliRunner().invoke(main, ["verify", "--coco", str(tmp_path)])
    assert f"\n❌ {tmp_path}: {tmp_path} has no known layout" in result.output
    with pytest.raises(DatasetError, match=r"notes.json is a file; .*--train-json"):
        open_dataset(tmp_path / "notes.json")


def test_cvat_instances_come_before_files_of_the_same_subset(tmp_path):
    for name in ("train", "instances_train", "person_keypoints_train", "captions_train"):
        write(tmp_path / f"annotations/{name}.json", tmp_path / "images/train")
    assert recognise(tmp_path)[1]["train"].annotations.name == "instances_train.json"


def test_cvat_subsets_of_unknown_names_must_be_named(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"annotations/instances_{name}.json", tmp_path / "images" / name)
    with pytest.raises(DatasetError, match=r"instances_a.json and instances_b.json.*--train-json"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "images/{}.jpg",
        "images\\{}.jpg",
        "{}.jpg",
        "../../label-studio/data/media/upload/1/{}.jpg",
        "/data/upload/1/0a1b2c3d-{}.jpg",
        "/data/local-files/?d=photos%5C{}.jpg",
        "C:\\Users\\ana\\photos\\{}.jpg",
        "http://localhost:8080/data/upload/3/{}.jpg",
        "https://bucket.s3.amazonaws.com/photos/{}.jpg?X-Amz-Expires=3600",
    ],
)
def test_the_names_that_label_studio_gives(name, tmp_path):
    numbers = range(1, 7)
    write(
        tmp_path / "data/result.json",
        tmp_path / "data/images",
        names=[name.format(number) for number in numbers],
        stored=[f"{number}.jpg" for number in numbers],
    )
    write(tmp_path / "plain/train2017/_annotations.coco.json", tmp_path / "plain/train2017")
    spec = CacheSpec(side=64, val_share=0.3)
    both = [records(tmp_path / "data", tmp_path / split, split, spec) for split in ("train", "val")]
    assert both[0] | both[1] == records(tmp_path / "plain/train2017", tmp_path / "plain cache")


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("a b.jpg", "a%20b.jpg"),
        ("a%20b.jpg", "a b.jpg"),
        ("sub\\a.jpg", "sub/a.jpg"),
        (unicodedata.normalize("NFD", "niño ñandú.jpg"), unicodedata.normalize("NFC", "niño ñandú.jpg")),
        (unicodedata.normalize("NFC", "niño ñandú.jpg"), unicodedata.normalize("NFD", "niño ñandú.jpg")),
        ("sub\\ni%C3%B1o.jpg", "sub/niño.jpg"),
        ("100%.jpg", "100%.jpg"),
        ("photos/a.jpg", "a.jpg"),
        ("/home/ana/photos/a.jpg", "a.jpg"),
        ("/content/photos/drive/photos/sub/a.jpg", "sub/a.jpg"),
        ("C:\\Users\\ana\\photos\\sub\\a.jpg", "sub/a.jpg"),
        ("https://example.org/photos/a%20b.jpg", "a b.jpg"),
    ],
)
def test_other_spellings_of_a_name(written, stored, tmp_path):
    write_photo(tmp_path / "photos" / stored, 0)
    for root in (tmp_path, tmp_path / "photos"):  # as of a layout, and as of files that are named
        photos = PhotoFolder(root, tmp_path / "photos")
        assert photos.locate(written) == stored
    assert photos.locate("b\\c%20d.jpg") == "b\\c%20d.jpg", "of no file is it known what is meant"


@pytest.mark.parametrize("name", ["3.jpg", "cam2/3.jpg", "CAM1/3.JPG", "3.png"])
def test_a_near_miss_is_named(name, tmp_path):
    found = "cam1/3.jpg"
    write(tmp_path / "labels.json", tmp_path / "data", names=["1.jpg", name], stored=["1.jpg", found])
    (finding,) = verify_dataset(tmp_path).findings
    assert finding.reason == f"the image file is missing; did you mean {found}?"
    report = build_cache(BuildConfig(coco=tmp_path, out=tmp_path / "cache", spec=CacheSpec(side=64), splits=("train",)))
    assert [each.reason for each in report.rejections] == [finding.reason]


def test_a_photo_that_another_image_names_is_no_near_miss(tmp_path):
    write(tmp_path / "labels.json", tmp_path / "data", names=["cam1/3.jpg", "cam2/3.jpg"])
    (tmp_path / "data/cam1/3.jpg").unlink()
    (finding,) = verify_dataset(tmp_path).findings
    assert finding.reason == "the image file is missing"


def test_a_dataset_is_described_by_a_file(tmp_path):
    write(tmp_path / "labels/train.json", tmp_path / "photos/a")
    write(tmp_path / "labels/val.json", tmp_path / "photos/b", first=1001)
    text = 'train-json = "labels/train.json"\ntrain-images = "photos/a"\n'
    (tmp_path / "dataset.toml").write_text(text + 'val_json = "labels/val.json"\nval-images = "photos/b"\n')
    for location in (tmp_path, tmp_path / "dataset.toml"):
        dataset = open_dataset(location)
        assert (dataset.layout, list(dataset.splits)) == ("dataset.toml", ["train", "val"])
        assert verify_dataset(location).sound
    (tmp_path / "dataset.toml").write_text(text + "val-share = 0.25\n")
    report = build_cache(BuildConfig(coco=tmp_path, out=tmp_path / "cache", spec=CacheSpec(side=64)))
    assert report.index.spec.val_share == 0.25
    assert sum(split.samples for split in report.index.splits.values()) == 6
    assert all(change.none for change in find_changes(tmp_path / "cache", tmp_path))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "names no files; give it the lines train-json"),
        ("val-share = 0.1", "names no files"),
        ('train-json = "a.json"', "--train-images is missing, beside .*a.json"),
        ("train-json = 3", "train-json is not what is known"),
        ('train-jsn = "a"', "train-jsn is not what is known"),
        ('train-json = "a"\ntrain-images = "b"\nval-share = "a tenth"', "val-share is not what is known"),
        ('train-json = "a"\ntrain-images = "b"\nval-share = 1.5', "val_share=1.5 is not within"),
        ("train-json = ", "is not valid TOML"),
        (b"\xff\xfe", "is not valid TOML"),
        ('train-json = "a"\ntrain-images = "b"', "/a is missing"),
    ],
)  # fmt: skip
def test_a_wrong_description(text, reason, tmp_path):
    (tmp_path / "dataset.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=reason):
        read_content(tmp_path, "train", CacheSpec())
    result = CliRunner().invoke(main, ["analyze", "--coco", str(tmp_path), "--picture", str(tmp_path / "a.png")])
    assert isinstance(result.exception, SystemExit), result.output
    assert result.exit_code == 1


def test_a_share_for_val_stays_when_photos_are_added(tmp_path):
    names = [f"{n}.jpg" for n in range(200)]

    def split(share, names):
        write(tmp_path / "result.json", tmp_path / "images", names=names, stored=names[:1])
        parts = [read_content(tmp_path, name, CacheSpec(val_share=share)).table for name in ("train", "val")]
        for table in parts:
            assert len(table.annotation_id) == len(table)
        return [set(table.file_name) for table in parts]

    train, val = split(0.2, names)
    assert train | val == set(names)
    assert not train & val
    assert 20 <= len(val) <= 60
    more_train, more_val = split(0.2, [f"new {n}.jpg" for n in range(100)] + names)
    assert more_val & set(names) == val
    assert more_train & set(names) == train
    assert val < split(0.4, names)[1]
    assert [len(part) for part in split(0.01, names[:2])] == [1, 1], "each has a photo, even of two"


def test_each_split_has_a_photo_that_can_be_used(tmp_path):
    """Whichever two of eight these are: the others are missing, or have no person."""
    names = [f"{n}.jpg" for n in range(1, 9)]
    for usable in combinations(range(1, 9), 2):
        shutil.rmtree(tmp_path / "images", ignore_errors=True)
        write(tmp_path / "result.json", tmp_path / "images", names=names, stored=[f"{n}.jpg" for n in (*usable, 3, 4)])
        described = json.loads((tmp_path / "result.json").read_text())
        described["annotations"] = [
            each for each in described["annotations"] if each["image_id"] in usable or each["image_id"] > 4
        ]
        (tmp_path / "result.json").write_text(json.dumps(described))
        for split in ("train", "val"):
            table = read_content(tmp_path, split, CacheSpec(val_share=0.3)).table
            found = {table.file_name[row] for row in table.annotation_image.tolist()}
            assert found & {names[n - 1] for n in usable}, (usable, split)


def test_a_photo_of_several_images_is_doubtful(tmp_path):
    """As in files of two annotators that were joined: each image lacks the persons of the other."""
    write(tmp_path / "result.json", tmp_path / "images", names=["1.jpg", "2.jpg", "./1.jpg"])
    report = build_cache(BuildConfig(coco=tmp_path, out=tmp_path / "cache", spec=CacheSpec(side=64), splits=("train",)))
    (doubt,) = report.doubts
    assert doubt.startswith("train: photos of several images: 1, such as 1.jpg; ")
    assert report.images == {"train": 3}
    (finding,) = verify_dataset(tmp_path).findings
    assert (finding.image_id, finding.reason) == (3, "image 1 has the same file name")


def test_a_split_without_a_person_is_not_sound(tmp_path):
    """As Label Studio writes where masks were painted: all images, and no annotation."""
    write(tmp_path / "result.json", tmp_path / "images")
    described = json.loads((tmp_path / "result.json").read_text())
    (tmp_path / "result.json").write_text(json.dumps(described | {"annotations": []}))
    (finding,) = verify_dataset(tmp_path).findings
    assert "rule person, with 0 annotations of person among 6 images; export it with its masks" in finding.reason
    with pytest.raises(DatasetError) as error:
        build_cache(BuildConfig(coco=tmp_path, out=tmp_path / "cache", spec=CacheSpec(side=64), splits=("train",)))
    assert str(error.value) == finding.reason
    assert verify_dataset(tmp_path, CacheSpec(images="all")).sound


def test_no_split_val_is_an_error_that_says_what_to_do(tmp_path):
    write(tmp_path / "data/result.json", tmp_path / "data/images")
    config = BuildConfig(coco=tmp_path / "data", out=tmp_path / "cache", spec=CacheSpec(side=64))
    with pytest.raises(DatasetError, match=r"\(Label Studio\) has no split val; .*--val-share 0.1.*--split train"):
        build_cache(config)
    write(tmp_path / "both/labels.json", tmp_path / "both/data")
    shutil.copytree(tmp_path / "both", tmp_path / "set/train")
    shutil.copytree(tmp_path / "both", tmp_path / "set/val")
    with pytest.raises(DatasetError, match=r"has a validation split, .*val/labels.json; leave out --val-share"):
        build_cache(BuildConfig(coco=tmp_path / "set", out=tmp_path / "cache", spec=CacheSpec(val_share=0.1)))


def run(*arguments):
    result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_every_command_takes_files_that_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.json", tmp_path / "a")
    write(tmp_path / "b.json", tmp_path / "b", first=1001)
    named = ["--train-json", "a.json", "--train-images", "a", "--val-json", "b.json", "--val-images", "b"]
    shared = [*named[:4], "--val-share", "0.3"]
    assert "named files: train and val" in run("quick", *named)
    assert "named files: train and val" in run("quick", *shared)
    assert "6 of 6" in run("verify", *named)
    assert "verify" not in run("analyze", *shared, "--json")
    run("batch", *named, "--split", "val", "--batch-size", 2)
    run("preprocess", *named, "--out", "cache", "--side", 64)
    run("preprocess", *shared, "--out", "shared", "--side", 64)
    assert "is what a.json gives" in run("diff", "cache", *named)
    assert "is what a.json gives" in run("diff", "shared", *named[:4])
    run("verify", "--cache", "shared", *named[:4], "--val-share", 0.3)


@pytest.mark.parametrize("named", [False, True])
def test_the_command_that_diff_names_brings_the_cache_up_to_date(tmp_path, named):
    """As it stands, whatever the cache was made with, and for folders with a space."""
    data, cache = tmp_path / "mis fotos", tmp_path / "la caché"
    write(data / "result.json", data / "images")
    described = json.loads((data / "result.json").read_text())
    described["categories"] = [{"id": 1, "name": "mujer"}, {"id": 2, "name": "niño o niña"}]
    described["annotations"][1]["category_id"] = 2
    (data / "result.json").write_text(json.dumps(described))
    where = ["--train-json", data / "result.json", "--train-images", data / "images"] if named else ["--coco", data]
    spec = ["--category", "niño o niña", "--category", "mujer", "--side", 64, "--fit", "stretch", "--crowd", "person"]
    split = ["--split", "train"] if named else ["--val-share", 0.3]
    assert "; mujer, niño o niña of result.json" in run("preprocess", *where, "--out", cache, *spec, *split)
    described["annotations"][0]["segmentation"][0][0] += 5
    (data / "result.json").write_text(json.dumps(described))
    said = CliRunner().invoke(main, ["diff", str(cache), *map(str, where)]).output
    program, *command = shlex.split(said.splitlines()[-1])
    assert program == "cli.py"
    run(*command)
    assert "✅" in run("diff", cache, *where)


def as_roboflow(document, folder, photos):
    """A folder of Roboflow: ids from 0, an unused category of the same name first, names with a hash."""
    numbers = {image["id"]: number for number, image in enumerate(document["images"])}
    names = {}
    for image in document["images"]:
        names[image["file_name"]] = name = f"{image['file_name'].replace('.', '_')}.rf.{image['id'] * 7919:032x}.jpg"
        shutil.copy(photos / image["file_name"], folder / name)
    content = {
        "info": {"description": "Exported from roboflow.com", "year": "2026"},
        "categories": [
            {"id": 0, "name": "person", "supercategory": "none"},
            {"id": 1, "name": "person", "supercategory": "person"},
        ],
        "images": [
            {**image, "id": numbers[image["id"]], "file_name": names[image["file_name"]], "license": 1,
             "extra": {"name": image["file_name"]}}
            for image in document["images"]
        ],
        "annotations": [
            {**each, "id": number, "image_id": numbers[each["image_id"]], "category_id": 1}
            for number, each in enumerate(document["annotations"])
        ],
    }  # fmt: skip
    (folder / "_annotations.coco.json").write_text(json.dumps(content))
    (folder.parent / "README.roboflow.txt").write_text("people - v1")
    return {name: original for original, name in names.items()}


def as_cvat(document, folder, photos, subset="default"):
    """An export of CVAT: ids from 1, sub-folders, attributes, null for what it does not know."""
    numbers = {image["id"]: number for number, image in enumerate(document["images"], 1)}
    names = {image["file_name"]: f"cam {image['id'] % 3}/{image['file_name']}" for image in document["images"]}
    for original, name in names.items():
        (folder / "images" / subset / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photos / original, folder / "images" / subset / name)
    content = {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": "", "year": ""},
        "categories": [{"id": 1, "name": "person", "supercategory": ""}, {"id": 2, "name": "dog", "supercategory": ""}],
        "images": [
            {"id": numbers[image["id"]], "width": image["width"], "height": image["height"],
             "file_name": names[image["file_name"]], "license": 0, "flickr_url": "", "date_captured": 0}
            for image in document["images"]
        ],
        "annotations": [
            {"id": number, "image_id": numbers[each["image_id"]], "category_id": 1, "iscrowd": each["iscrowd"],
             "segmentation": each["segmentation"], "area": each["area"], "bbox": each["bbox"],
             "attributes": {"occluded": False, "rotation": 0.0}}
            for number, each in enumerate(document["annotations"], 1)
        ] + [{"id": 0, "image_id": 1, "category_id": 2, "segmentation": None}],
    }  # fmt: skip
    (folder / "annotations").mkdir(exist_ok=True)
    (folder / f"annotations/instances_{subset}.json").write_text(json.dumps(content))
    return {name: original for original, name in names.items()}


def as_label_studio(document, folder, photos):
    """An export of Label Studio: one file, ids and categories from 0, names with folders that are not there."""
    numbers = {image["id"]: number for number, image in enumerate(document["images"])}
    (folder / "images").mkdir()
    stored = {}
    for image in document["images"]:
        stored[image["file_name"]] = name = f"{image['id'] * 7919 % 2**32:08x}-{image['file_name']}"
        shutil.copy(photos / image["file_name"], folder / "images" / name)
    content = {
        "images": [
            {"width": image["width"], "height": image["height"], "id": numbers[image["id"]],
             "file_name": f"..\\..\\label-studio\\data\\media\\upload\\4\\{stored[image['file_name']]}"}
            for image in document["images"]
        ],
        "categories": [{"id": 0, "name": "person"}],
        "annotations": [
            {"id": number, "image_id": numbers[each["image_id"]], "category_id": 0, "ignore": 0,
             "segmentation": each["segmentation"], "iscrowd": each["iscrowd"], "area": each["area"],
             "bbox": each["bbox"]}
            for number, each in enumerate(document["annotations"])
        ],
        "info": {"year": 2026, "version": "1.0", "contributor": "Label Studio"},
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(content, indent=2))
    return {name: original for original, name in stored.items()}


def records_by_photo(coco, cache, split, original, **fields):
    """The records of a split by the names that their photos have in COCO."""
    spec = CacheSpec(side=96, **fields)
    report = build_cache(BuildConfig(coco=coco, out=cache, spec=spec, splits=("train", "val")))
    assert not report.rejections
    content = read_content(coco, split, report.index.spec)
    names = dict(zip(content.table.image_id.tolist(), content.table.file_name, strict=True))
    with CacheReader(cache, split) as reader:
        ids = reader.samples["image_id"].tolist()
        return {original.get(names[n], names[n]): reader.record(at).tobytes() for at, n in enumerate(ids)}


def test_real_photos_as_three_tools_export_them_give_the_records_of_coco(coco_people, tmp_path):
    roboflow, cvat, studio = (tmp_path / name for name in ("roboflow", "cvat", "label studio"))
    for folder in (roboflow, cvat, studio):
        folder.mkdir()
    expected, names = {}, {name: {} for name in ("roboflow", "cvat", "studio")}
    for split, folder, images in (("train", "train", 50), ("val", "valid", 25)):
        file = coco_people / "annotations" / f"person_keypoints_{split}2017.json"
        document, photos = json.loads(file.read_bytes()), coco_people / f"{split}2017"
        crowded = {each["image_id"] for each in document["annotations"] if each["iscrowd"]}
        document["images"].sort(key=lambda image: image["id"] not in crowded)
        document["images"] = document["images"][:images]
        chosen = {image["id"] for image in document["images"]}
        document["annotations"] = [each for each in document["annotations"] if each["image_id"] in chosen]
        coco = tmp_path / "coco"
        (coco / "annotations").mkdir(parents=True, exist_ok=True)
        (coco / "annotations" / file.name).write_text(json.dumps(document))
        (coco / f"{split}2017").symlink_to(photos)
        (roboflow / folder).mkdir()
        names["roboflow"] |= as_roboflow(document, roboflow / folder, photos)
        names["cvat"] |= as_cvat(document, cvat, photos, split)
        if split == "train":
            names["studio"] = as_label_studio(document, studio, photos)
    for split in ("train", "val"):
        expected[split] = records_by_photo(coco, tmp_path / "cache coco", split, {})
        assert expected[split] == records_by_photo(roboflow, tmp_path / "cache roboflow", split, names["roboflow"])
        assert expected[split] == records_by_photo(cvat, tmp_path / "cache cvat", split, names["cvat"])
    parts = [
        records_by_photo(studio, tmp_path / "cache studio", split, names["studio"], val_share=0.2)
        for split in ("train", "val")
    ]
    assert all(parts)
    assert parts[0] | parts[1] == expected["train"]
    assert verify_dataset(studio, CacheSpec(val_share=0.2)).sound
