"""A dataset changes after its cache was made: what is found, what is made again, and that the result is right."""

import json
import random

import numpy as np
import pytest

from cache.errors import CacheError, CacheStaleError
from cache.index import CacheIndex
from cache.integrity import check_split
from cache.reader import CacheReader
from cache.spec import CacheSpec
from preprocess.build.build import BuildConfig, build_cache, repair_cache
from preprocess.build.changes import find_changes
from preprocess.check.verify import verify_cache

IMAGES = 60
SPEC = CacheSpec(side=32, shard_samples=4)


@pytest.fixture
def coco(tmp_path, write_coco):
    return write_coco(tmp_path / "coco", counts=(IMAGES, 5))


@pytest.fixture
def out(tmp_path, coco):
    build(coco, tmp_path / "cache")
    return tmp_path / "cache"


def build(coco, out, **fields):
    return build_cache(BuildConfig(coco=coco, out=out, **{"spec": SPEC, **fields}))


def document_path(coco, split="train"):
    return coco / "annotations" / f"person_keypoints_{split}2017.json"


def edit(coco, change, split="train"):
    document = json.loads(document_path(coco, split).read_text())
    change(document)
    document_path(coco, split).write_text(json.dumps(document))


def annotation_of(document, image_id):
    return next(annotation for annotation in document["annotations"] if annotation["image_id"] == image_id)


def move(document, image_id=120):
    """Shift a polygon of an image by a pixel."""
    polygon = annotation_of(document, image_id)["segmentation"][0]
    polygon[0] += 1


def contents(out):
    """Sample table without the names of shards, and every record."""
    found = {}
    for split in CacheIndex.load(out).splits:
        with CacheReader(out, split) as reader:
            assert list(check_split(reader)) == []
            found[split] = reader.samples.tobytes(), [reader.record(number).tobytes() for number in range(len(reader))]
    return found


def shard_files(out):
    return {path: path.stat().st_mtime_ns for path in out.glob("*/*.lmdb")}


def assert_as_built_anew(coco, out, tmp_path):
    fresh = tmp_path / "fresh"
    build(coco, fresh, force=fresh.exists())
    assert contents(out) == contents(fresh)
    assert CacheIndex.load(out).fingerprint == CacheIndex.load(fresh).fingerprint
    names = {path.name for split in ("train", "val") for path in (out / split).iterdir()}
    index = CacheIndex.load(out)
    shards = {shard.name for split in index.splits.values() for shard in split.shards}
    assert {name for name in names if name.endswith(".lmdb")} == shards, "nothing stays behind"


def test_one_changed_annotation_makes_one_shard_again(coco, out, tmp_path):
    before = shard_files(out)
    edit(coco, move)
    (train, val) = find_changes(out, coco)
    assert (train.annotations, train.stale_shards, val.none) == (("000000000020.jpg",), 1, True)
    report = build(coco, out)
    assert (report.fresh, report.changes) == (False, (train, val))
    assert report.written == train.stale_images <= 2 * SPEC.shard_samples
    assert report.written + report.resumed == sum(split.samples for split in report.index.splits.values())
    after = shard_files(out)
    assert len(before.items() & after.items()) == len(before) - 1, "the others were not touched"
    assert_as_built_anew(coco, out, tmp_path)
    assert build(coco, out).fresh


def test_an_annotation_file_written_otherwise_but_of_equal_meaning_changes_nothing(coco, out):
    document = json.loads(document_path(coco).read_text())
    document_path(coco).write_text(json.dumps(document, indent=2))
    assert build(coco, out).fresh


@pytest.mark.parametrize("what", ["new", "gone", "photo", "emptied", "flag"])
def test_any_other_change_is_found_and_followed(coco, out, tmp_path, what):
    photo = coco / "train2017" / f"{20:012d}.jpg"

    def change(document):
        if what == "new":
            image = dict(document["images"][20], id=7, file_name="another.jpg")
            document["images"].insert(30, image)
            document["annotations"].append(dict(annotation_of(document, 120), id=9999, image_id=7))
            (coco / "train2017" / "another.jpg").write_bytes(photo.read_bytes())
        elif what == "gone":
            document["images"].pop(20)
            document["annotations"] = [each for each in document["annotations"] if each["image_id"] != 120]
        elif what == "photo":
            photo.write_bytes(photo.read_bytes() + b"\0")
        elif what == "emptied":
            document["annotations"] = [each for each in document["annotations"] if each["image_id"] != 120]
        else:
            annotation_of(document, 120)["iscrowd"] = 1

    edit(coco, change)
    train, val = find_changes(out, coco)
    expected = {
        "new": (("another.jpg",), (), (), ()),
        "gone": ((), (photo.name,), (), ()),
        "photo": ((), (), (photo.name,), ()),
        "emptied": ((), (photo.name,), (), ()),
        "flag": ((), (), (), (photo.name,)),
    }
    assert (train.new, train.gone, train.photos, train.annotations) == expected[what]
    assert 0 < train.stale_shards <= 4
    assert val.none
    assert build(coco, out).written == train.stale_images < IMAGES // 2
    assert_as_built_anew(coco, out, tmp_path)


def test_a_photo_that_kept_its_size_is_found_by_its_content(coco, out, tmp_path):
    photo = coco / "train2017" / f"{20:012d}.jpg"
    data = bytearray(photo.read_bytes())
    data[len(data) // 2] ^= 1
    photo.write_bytes(data)
    assert all(change.none for change in find_changes(out, coco))
    train, val = find_changes(out, coco, content=True)
    assert (train.photos, train.stale_shards, val.none) == ((photo.name,), 1, True)
    assert build(coco, out).fresh
    assert build(coco, out, content=True).written == train.stale_images
    assert build(coco, out, content=True).fresh
    assert_as_built_anew(coco, out, tmp_path)


def test_many_random_changes_one_after_the_other(coco, out, tmp_path):
    rng = random.Random(0)

    def change(document):
        for _ in range(rng.randint(1, 3)):
            annotations = document["annotations"]
            action = rng.choice(["move", "drop", "double", "shuffle"])
            if action == "move":
                polygons = [each["segmentation"] for each in annotations if isinstance(each["segmentation"], list)]
                rng.choice(polygons)[0][0] += rng.random()
            elif action == "drop":
                annotations.pop(rng.randrange(len(annotations)))
            elif action == "double":
                annotations.append(dict(rng.choice(annotations)))
            else:
                document["images"].append(document["images"].pop(rng.randrange(IMAGES - 5)))

    made = 0
    for _ in range(6):
        edit(coco, change)
        report = build(coco, out)
        made += report.written
        assert_as_built_anew(coco, out, tmp_path)
    assert 0 < made < 4 * IMAGES


def test_the_old_cache_stays_valid_until_the_new_one_is_there(coco, out):
    before = contents(out)

    def fail(done, total):
        if done == total:
            raise RuntimeError("stop")

    edit(coco, move)
    with pytest.raises(RuntimeError, match="stop"):
        build_cache(BuildConfig(coco=coco, out=out, spec=SPEC), fail)
    assert contents(out) == before
    assert build(coco, out).written > 0


def test_a_rejected_image_that_was_mended_comes_in(coco, out, tmp_path):
    photo = coco / "train2017" / f"{20:012d}.jpg"
    data = photo.read_bytes()
    photo.write_bytes(data[: len(data) // 2])
    assert [rejection.file_name for rejection in build(coco, out).rejections] == [photo.name]
    assert build(coco, out).rejections, "a cache that is up to date still tells"
    photo.write_bytes(data)
    assert build(coco, out).rejections == ()
    assert_as_built_anew(coco, out, tmp_path)


def test_splits_are_built_one_by_one(coco, tmp_path):
    out = tmp_path / "cache"
    first = build(coco, out, splits=("train",))
    second = build(coco, out, splits=("val",))
    assert second.index.splits.keys() == {"train", "val"}
    assert second.index.splits["train"] == first.index.splits["train"]
    assert second.resumed == 0
    assert_as_built_anew(coco, out, tmp_path)


def test_the_codec_that_was_chosen_once_stays(coco, tmp_path, monkeypatch):
    out = tmp_path / "cache"
    jpeg = CacheSpec(side=32, shard_samples=4, codec="jpeg")
    build(coco, out, spec=jpeg)
    assert build(coco, out, auto_codec=True).index.spec.codec == "jpeg", "memory would be enough for raw"


@pytest.mark.parametrize("victim", ["index.json", "train/samples.npy", "train/00002.json", "train/00002.lmdb"])
@pytest.mark.parametrize("lost", [True, False])
def test_the_same_command_mends_what_is_lost_or_cut(coco, out, tmp_path, victim, lost):
    whole = contents(out)
    path = out / victim
    if lost:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-40])
    report = build(coco, out)
    assert report.written == (0 if victim in ("index.json", "train/samples.npy") else pytest.approx(4, abs=4))
    assert contents(out) == whole
    assert build(coco, out).fresh


def test_repair_makes_just_the_damaged_shards_again(coco, out):
    whole = contents(out)
    for name, offset in (("train/00001.lmdb", 9000), ("train/00004.lmdb", 12000), ("val/00000.json", 60)):
        data = bytearray((out / name).read_bytes())
        data[offset] ^= 16
        (out / name).write_bytes(data)
    before = shard_files(out)
    found = verify_cache(out)
    assert {(damage.split, damage.shard) for damage in found.damages} == {
        ("train", "00001.lmdb"),
        ("train", "00004.lmdb"),
        ("val", "00000.lmdb"),
    }
    report = repair_cache(out, coco, found.damages)
    assert sum(change.stale_shards for change in report.changes) == 3
    assert len(before.items() & shard_files(out).items()) == len(before) - 3
    assert verify_cache(out, coco=coco).sound
    assert contents(out) == whole


def test_repair_from_another_dataset_is_refused(coco, out):
    path = out / "train" / "00001.lmdb"
    path.write_bytes(path.read_bytes()[:-1])
    edit(coco, move)
    with pytest.raises(CacheStaleError, match=r"1 image is annotated otherwise \(0+20\.jpg\).*bring it up to date"):
        repair_cache(out, coco, verify_cache(out).damages)


def test_a_difference_without_a_cache_is_an_error(coco, tmp_path):
    with pytest.raises(CacheError, match="holds no finished cache"):
        find_changes(tmp_path / "nothing", coco)


def test_the_sample_table_is_the_same_however_it_came_about(coco, out, tmp_path):
    edit(coco, move)
    build(coco, out)
    with CacheReader(out, "train") as reader:
        shard, row = reader.samples["shard"], reader.samples["row"]
        assert (np.diff(shard) >= 0).all()
        assert all((row[shard == number] == np.arange((shard == number).sum())).all() for number in set(shard.tolist()))
