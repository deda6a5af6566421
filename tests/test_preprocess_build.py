"""Build a cache from a small COCO folder, real files on disk: what it holds, what it refuses, what it survives."""

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from pycocotools import mask as mask_api

from cache.errors import CacheCorruptError, CacheError, CacheStaleError, CacheVersionError, CacheWriteError
from cache.integrity import check_split
from cache.reader import CacheReader
from cache.spec import FORMAT_VERSION, CacheSpec
from preprocess.build.build import BuildConfig, build_cache
from preprocess.build.folder import lock_folder, resolve_codec
from preprocess.errors import DatasetError
from preprocess.image import read_rgb

SIDE = 64
WRITTEN = 9 + 4  # images with an annotation in the folder that `write_coco` makes by default


@pytest.fixture(scope="module")
def coco(tmp_path_factory, write_coco):
    return write_coco(tmp_path_factory.mktemp("data") / "coco")


@pytest.fixture
def own_coco(tmp_path, write_coco):
    return write_coco(tmp_path / "coco")


def config(coco, out, **fields):
    spec = CacheSpec(**{"side": SIDE, "shard_samples": 4, **fields.pop("spec", {})})
    return BuildConfig(coco=coco, out=out, spec=spec, **fields)


def edit(coco, change, split="train2017"):
    path = coco / "annotations" / f"person_keypoints_{split}.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def records(out):
    found = {}
    for split in ("train", "val"):
        with CacheReader(out, split) as reader:
            found[split] = [reader.record(sample).tobytes() for sample in range(len(reader))]
    return found


@pytest.mark.parametrize(("store", "codec"), [("lmdb", "raw"), ("lmdb", "jpeg"), ("zarr", "raw")])
@pytest.mark.parametrize("fit", ["letterbox", "stretch"])
def test_every_record_can_be_reproduced_with_pycocotools_and_cv2(coco, tmp_path, store, codec, fit):
    out = tmp_path / "cache"
    report = build_cache(config(coco, out, spec={"store": store, "codec": codec, "fit": fit}))
    assert report.rejections == ()
    assert report.written == WRITTEN
    for split in ("train", "val"):
        document = json.loads((coco / "annotations" / f"person_keypoints_{split}2017.json").read_text())
        with CacheReader(out, split) as reader:
            assert list(check_split(reader)) == []
            for sample, row in enumerate(reader.samples):
                (image,) = (entry for entry in document["images"] if entry["id"] == row["image_id"])
                check_record(coco / f"{split}2017", document, image, reader, sample, fit)


def check_record(folder, document, image, reader, sample, fit):
    height, width, row = image["height"], image["width"], reader.samples[sample]
    fields = reader.layout.split(reader.record(sample))
    scale = SIDE / max(height, width)
    size = (SIDE, SIDE) if fit == "stretch" else tuple(max(1, int(n * scale + 0.5)) for n in (width, height))
    x, y = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    inner = slice(y, y + size[1]), slice(x, x + size[0])
    assert (row["box_x"], row["box_y"], row["box_width"], row["box_height"]) == (x, y, *size)

    planes = {0: np.zeros((height, width), np.uint8), 1: np.zeros((height, width), np.uint8)}
    persons = 0
    for annotation in document["annotations"]:
        if annotation["image_id"] == image["id"]:
            encoded = mask_api.frPyObjects(annotation["segmentation"], height, width)
            encoded = mask_api.merge(encoded) if isinstance(encoded, list) else encoded
            planes[annotation["iscrowd"]] |= mask_api.decode(encoded)
            persons += not annotation["iscrowd"]
    planes[1] &= 1 - planes[0]
    small = [cv2.resize(255 * planes[k], size, interpolation=cv2.INTER_AREA) >= 128 for k in (0, 1)]
    person, ignore = np.zeros((SIDE, SIDE), np.uint8), np.ones((SIDE, SIDE), np.uint8)
    person[inner], ignore[inner] = small[0], small[1]
    np.testing.assert_array_equal(reader.layout.unpack_plane(fields.person), person)
    np.testing.assert_array_equal(reader.layout.unpack_plane(fields.ignore), ignore)
    assert row["persons"] == persons
    assert row["person_fraction"] == pytest.approx(small[0].mean())

    shrinks = size[0] <= width and size[1] <= height
    pixels = np.zeros((SIDE, SIDE, 3), np.uint8)
    photo = cv2.imread(str(folder / image["file_name"]))[:, :, ::-1]
    pixels[inner] = cv2.resize(photo, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if reader.layout.codec == "raw":
        np.testing.assert_array_equal(fields.image.reshape(SIDE, SIDE, 3), pixels)
    else:
        decoded = cv2.imdecode(fields.image, cv2.IMREAD_COLOR)[:, :, ::-1]
        assert np.abs(decoded.astype(int) - pixels).mean() < 3


def test_the_same_build_twice_is_the_same_and_does_nothing_the_second_time(coco, tmp_path):
    first = build_cache(config(coco, tmp_path / "a"))
    again = build_cache(config(coco, tmp_path / "a"))
    other = build_cache(config(coco, tmp_path / "b", workers=1))
    assert not first.fresh
    assert again.fresh
    assert (again.index, again.written) == (first.index, 0)
    assert other.index == first.index
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file() and path.suffix != ".lmdb":
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path
    assert records(tmp_path / "a") == records(tmp_path / "b")
    assert not [path for path in (tmp_path / "a").rglob("*") if path.name.startswith(".") or "build" in path.name]


def test_progress_counts_every_image_once(coco, tmp_path):
    calls = []
    build_cache(config(coco, tmp_path / "cache"), lambda done, total: calls.append((done, total)))
    assert [done for done, _ in calls] == list(range(1, WRITTEN + 1))
    assert {total for _, total in calls} == {WRITTEN}


def test_a_cache_of_another_spec_is_refused_with_the_reason(coco, tmp_path):
    out = tmp_path / "cache"
    build_cache(config(coco, out))
    with pytest.raises(CacheStaleError, match=r"side: 64, not 96\); use another --out, or --force"):
        build_cache(config(coco, out, spec={"side": 96}))
    assert build_cache(config(coco, out, spec={"side": 96}, force=True)).written == WRITTEN


def test_bad_images_are_rejected_with_a_reason_and_the_rest_is_built(own_coco, tmp_path):
    folder = own_coco / "train2017"
    data = (folder / f"{0:012d}.jpg").read_bytes()
    (folder / f"{0:012d}.jpg").write_bytes(data[: len(data) // 2])
    (folder / f"{1:012d}.jpg").unlink()
    (folder / f"{2:012d}.jpg").write_text("no picture")

    def change(document):
        document["images"][4]["height"] += 1
        document["annotations"][-1]["segmentation"] = [[]]

    edit(own_coco, change)
    report = build_cache(config(own_coco, tmp_path / "cache"))
    reasons = {rejection.image_id: rejection.reason for rejection in report.rejections}
    assert reasons.keys() == {100, 101, 102, 104, 110}
    assert "damaged" in reasons[100]
    assert "missing" in reasons[101]
    assert "it is not a JPEG, PNG" in reasons[102]
    assert "its JSON entry says" in reasons[104] or "RLE" in reasons[104]
    assert "polygon is empty" in reasons[110]
    lines = (tmp_path / "cache" / "train" / "rejected.jsonl").read_text().splitlines()
    assert {json.loads(line)["image_id"]: json.loads(line)["reason"] for line in lines} == reasons
    with CacheReader(tmp_path / "cache", "train") as reader:
        assert not set(reader.samples["image_id"].tolist()) & reasons.keys()
        assert reader.info.rejected == 5
    assert build_cache(config(own_coco, tmp_path / "cache")).rejections == report.rejections


def test_an_annotation_without_an_image_is_told(own_coco, tmp_path):
    edit(own_coco, lambda document: document["annotations"][0].update(image_id=999))
    report = build_cache(config(own_coco, tmp_path / "cache"))
    (told,) = report.rejections
    assert (told.image_id, told.file_name) == (-1, "person_keypoints_train2017.json")
    assert told.reason == "annotation 0: its image 999 is not in the file"
    assert "annotation 0" in (tmp_path / "cache" / "train" / "rejected.jsonl").read_text()
    assert report.index.splits["train"].rejected == 0, "no image was"


def test_another_category_or_limit_is_another_cache(own_coco, tmp_path):
    out = tmp_path / "cache"
    report = build_cache(config(own_coco, out, spec={"limit": 3}))
    assert [split.samples for split in report.index.splits.values()] == [3, 3]
    with pytest.raises(CacheStaleError, match="limit: 3, not 0"):
        build_cache(config(own_coco, out))

    for split in ("train2017", "val2017"):
        edit(own_coco, lambda document: document["categories"].append({"id": 2, "name": "dog"}), split)
    with pytest.raises(CacheStaleError, match="category: person, not dog"):
        build_cache(config(own_coco, out, spec={"category": "dog", "images": "all"}))


def test_nothing_left_is_an_error(own_coco, tmp_path):
    for photo in (own_coco / "val2017").iterdir():
        photo.write_bytes(b"")
    with pytest.raises(DatasetError, match=r"every one of the 4 images .* for val was rejected; .* 0+\.jpg: .*empty"):
        build_cache(config(own_coco, tmp_path / "cache"))


def test_what_rejects_all_can_be_mended_without_force(own_coco, tmp_path):
    """By an option, as with photos that EXIF turns, or in the annotations."""
    for split in ("train2017", "val2017"):
        edit(own_coco, lambda document: [each.update(segmentation=[]) for each in document["annotations"]], split)
    with pytest.raises(DatasetError, match=r"for train was rejected; .* a box alone makes no mask"):
        build_cache(config(own_coco, tmp_path / "cache"))
    for split in ("train2017", "val2017"):
        edit(own_coco, lambda document: document.update(annotations=[]), split)
    assert not build_cache(config(own_coco, tmp_path / "cache", spec={"images": "all", "side": 96})).rejections


def test_missing_parts_of_a_dataset_are_named(own_coco, tmp_path):
    (own_coco / "val2017").rename(own_coco / "elsewhere")
    with pytest.raises(DatasetError, match=r"val2017 is missing; unpack val2017\.zip"):
        build_cache(config(own_coco, tmp_path / "cache"))
    assert build_cache(config(own_coco, tmp_path / "cache", splits=("train",))).index.splits.keys() == {"train"}
    with pytest.raises(DatasetError, match=r"nowhere is empty or missing; point --coco"):
        build_cache(config(tmp_path / "nowhere", tmp_path / "other"))


def test_a_foreign_folder_is_left_alone(coco, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(CacheError, match=r"holds other things \(thesis\.txt\)"):
        build_cache(config(coco, tmp_path, force=True))
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_two_builds_at_once(coco, tmp_path):
    out = tmp_path / "cache"
    out.mkdir()
    with lock_folder(out), pytest.raises(CacheError, match=f"being written by process {os.getpid()}; wait"):
        build_cache(config(coco, out))
    assert build_cache(config(coco, out)).written == WRITTEN


def test_auto_codec_follows_memory():
    spec = CacheSpec(side=384)
    raw = 384 * 384 * 3 + 2 * 384 * 384 // 8
    assert resolve_codec(spec, 1000, 2 * 1000 * raw).codec == "raw"
    assert resolve_codec(spec, 1000, 2 * 1000 * raw - 2).codec == "jpeg"
    assert resolve_codec(CacheSpec(side=384, store="zarr"), 1000, 0).codec == "raw"


def test_too_little_space_is_told_before_anything_is_written(coco, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
    message = r"need about \d+ MB and .* has room for 0 MB; free some space, or use --image-codec jpeg"
    with pytest.raises(CacheError, match=message):
        build_cache(config(coco, tmp_path / "cache"))
    monkeypatch.undo()
    assert build_cache(config(coco, tmp_path / "cache", spec={"codec": "jpeg"})).written == WRITTEN, "as it was told"


def test_an_unfinished_build_of_something_else_is_not_thrown_away(own_coco, tmp_path):
    coco, out = own_coco, tmp_path / "cache"
    build_cache(config(coco, out))

    def stop(done, total):
        if done == WRITTEN:
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        build_cache(config(coco, out, force=True, workers=1), stop)
    with pytest.raises(CacheStaleError, match=r"holds an unfinished or damaged cache of something else.*--force"):
        build_cache(config(coco, out, spec={"side": 96}))
    report = build_cache(config(coco, out))
    assert report.resumed >= 4
    assert report.written + report.resumed == WRITTEN


def test_no_permission_is_a_clear_error(coco, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(CacheError, match=r"cannot create .*choose another --out"):
        build_cache(config(coco, blocked / "cache"))


def test_real_photos_become_a_sound_cache(coco_mini, tmp_path):
    report = build_cache(BuildConfig(coco=coco_mini, out=tmp_path / "cache", spec=CacheSpec(side=128), auto_codec=True))
    assert report.rejections == ()
    assert {name: split.samples for name, split in report.index.splits.items()} == {"train": 36, "val": 39}
    with CacheReader(tmp_path / "cache", "train") as reader:
        assert list(check_split(reader)) == []
        first = reader.samples[0]
        photo = read_rgb(coco_mini / "train2017" / f"{first['image_id']:012d}.jpg")
        assert photo.shape == (first["height"], first["width"], 3)


def test_a_corrupt_table_is_found(coco, tmp_path):
    build_cache(config(coco, tmp_path / "cache"))
    path = tmp_path / "cache" / "train" / "samples.npy"
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with pytest.raises(CacheCorruptError, match=r"samples\.npy was changed"):
        CacheReader(tmp_path / "cache", "train")


def test_a_cache_of_another_format_is_refused_until_forced(coco, tmp_path):
    out = tmp_path / "cache"
    whole = build_cache(config(coco, out))
    path = out / "index.json"
    path.write_text(path.read_text().replace(f'"format_version": {FORMAT_VERSION}', '"format_version": 999'))
    with pytest.raises(CacheVersionError, match="--force"):
        build_cache(config(coco, out))
    again = build_cache(config(coco, out, force=True))
    assert (again.written, again.index) == (WRITTEN, whole.index)


def test_force_makes_everything_anew(coco, tmp_path):
    out = tmp_path / "cache"
    whole = build_cache(config(coco, out))
    path = out / "train" / "00001.lmdb"
    path.write_bytes(path.read_bytes()[:5000])
    again = build_cache(config(coco, out, force=True))
    assert (again.written, again.index) == (WRITTEN, whole.index)
    with CacheReader(out, "train") as reader:
        assert list(check_split(reader)) == []


def test_strict_makes_a_rejection_an_error_and_loses_nothing(own_coco, tmp_path):
    out = tmp_path / "cache"
    (own_coco / "train2017" / f"{1:012d}.jpg").write_text("no picture")
    edit(own_coco, lambda document: document["annotations"][0].update(image_id=999))
    told = r"--strict: 2 rejected .*its image 999 is not.*0001\.jpg: .*leave --strict out"
    with pytest.raises(DatasetError, match=told):
        build_cache(config(own_coco, out, strict=True))
    assert not (out / "index.json").exists()
    report = build_cache(config(own_coco, out))
    assert report.written == 0
    assert len(report.rejections) == 2
    with pytest.raises(DatasetError, match="--strict: 2 rejected"):  # a finished cache is no excuse
        build_cache(config(own_coco, out, strict=True))


def test_write_errors_are_cache_errors():
    assert issubclass(CacheWriteError, CacheError)
